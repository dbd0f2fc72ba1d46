"""A peer of generate_throughput.py, run by its own Python: Hugging Face generate on prompts given as tokens."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Warm up, generate, print the seconds and the new tokens."""
    given: dict[str, Any] = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=getattr(torch, given["precision"])).eval()

    def generate(prompts: list[list[int]], new: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(one)) + one for one in prompts])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=new,
                min_new_tokens=new,
                eos_token_id=None,
                pad_token_id=0,
            )
        return [row[longest:].tolist() for row in made]

    generate(given["warm_ids"], 8)
    seconds = []
    for _ in range(given["times"]):
        begun = time.perf_counter()
        tokens = generate(given["ids"], given["new"])
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": statistics.median(seconds), "tokens": tokens}))


if __name__ == "__main__":
    main()
