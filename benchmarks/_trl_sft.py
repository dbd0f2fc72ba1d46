"""The peer of train_throughput.py, run by its own Python: TRL's SFTTrainer with peft on rows given as tokens."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from typing import Any


def main() -> None:
    """Train a few steps; print when each ended and the peak of the process."""
    given: dict[str, Any] = json.loads(sys.argv[-1])
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
            use_cpu=True,
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
            model=given["model"],
            args=config,
            train_dataset=rows,
            peft_config=adapter if given["method"] == "lora" else None,
            callbacks=[Clock()],
        )
        trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"times": times, "peak_mb": peak}))


if __name__ == "__main__":
    main()
