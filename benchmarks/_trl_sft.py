"""The peer of train_throughput.py and gpu.py, run by its own Python: TRL's SFTTrainer with peft on rows of tokens.

The model is a folder, or made with random weights from a configuration of Llama.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def made(config: dict[str, Any]) -> Any:
    """A Llama of random weights."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=torch.bfloat16)


def tokenizer() -> Any:
    """A tokenizer that does nothing: the rows are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>")


def main() -> None:
    """Train a few steps; print when each ended and the peak of the process."""
    given: dict[str, Any] = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not times:
                times.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    rows = Dataset.from_list(
        [{"input_ids": row["ids"], "completion_mask": [int(w > 0) for w in row["weights"]]} for row in given["rows"]]
    )
    settings: dict[str, Any] = {} if given["checkpointing"] else {"gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            use_cpu=not torch.cuda.is_available(),
            use_liger_kernel=given.get("liger", False),
            per_device_train_batch_size=given["rows_a_step"],
            max_steps=given["steps"],
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            **settings,
        )
        adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            model=given.get("model") or made(given["config"]),
            args=config,
            train_dataset=rows,
            processing_class=None if given.get("model") else tokenizer(),
            peft_config=adapter if given["method"] == "lora" else None,
            callbacks=[Clock()],
        )
        trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 1e6
    print(json.dumps({"times": times, "peak_mb": peak}))


if __name__ == "__main__":
    main()
