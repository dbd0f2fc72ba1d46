"""The peer of shared_prefix.py, run by its own Python: lm-eval's hf backend on contexts and continuations as tokens."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Warm up, score, print the seconds and the log-probabilities."""
    given: dict[str, Any] = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=given["model"], device="cpu", dtype="bfloat16", batch_size=8)
    requests = [
        (("", ""), context, continuation)
        for context, continuation in zip(given["contexts"], given["continuations"], strict=True)
    ]
    model._loglikelihood_tokens(requests[:2], disable_tqdm=True)
    # Its cache of equal contexts is part of how it works, and stays on.
    begun = time.perf_counter()
    found = model._loglikelihood_tokens(requests, disable_tqdm=True)
    print(json.dumps({"seconds": time.perf_counter() - begun, "logprobs": [float(one[0]) for one in found]}))


if __name__ == "__main__":
    main()
