"""Peak memory of training on one row of 8,192 tokens, all of them trained, with LoRA.

    .venv/bin/python benchmarks/long_rows.py [--length 8192] [--memory-gb 8] [--json]

`ours` is the peak of the process in GB, `peer` the memory it was given; the estimate decides whether layers are
computed again in the backward pass. Two steps are taken, in a process of its own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import _peers


def ours(given: dict[str, Any]) -> dict[str, Any]:
    """Train two steps on random tokens; seconds, peak and estimate."""
    import torch

    from tunesmith.core.config import resolve
    from tunesmith.core.machine import peak_mb
    from tunesmith.core.progress import quiet
    from tunesmith.core.records import Encoded
    from tunesmith.engine.fit import Job, fit
    from tunesmith.recipes._work import open_model

    settings: dict[str, Any] = {"model": _peers.MODEL, "task": "generation", "data": {"train": "-"}, "method": "lora"}
    project = resolve(settings | {"budget": {"memory_gb": given["memory_gb"]}})
    project = project.model_copy(update={"per_device_train_batch_size": 1})
    model, generator = open_model(project.model), torch.Generator().manual_seed(0)
    ids = [torch.randint(1000, 40000, (given["length"],), generator=generator).tolist() for _ in range(2)]
    rows = [Encoded(tuple(one), (0.0, *(1.0 for _ in one[1:]))) for one in ids]
    project.method.module.attach(model.loaded.model, project.method.config)
    times = [time.perf_counter()]
    with quiet():
        done = fit(Job(model.prepared, project, rows, steps=2), lambda step: times.append(time.perf_counter()))
    told = done.receipt
    return {
        "peak_mb": peak_mb(),
        "estimate_mb": told["memory_estimate_mb"]["total"],
        "recompute": told["recompute"],
        "tokens_a_second": given["length"] / (times[2] - times[1]),
    }


def main() -> int:
    """Run it and print the line."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--memory-gb", type=float, default=8.0)
    asked = parser.parse_args()
    if asked.ours:
        return _peers.as_child(asked, ours)
    found = _peers.child(sys.executable, Path(__file__), "--ours", length=asked.length, memory_gb=asked.memory_gb)
    peak = found["peak_mb"] / 1000
    how = "layers computed again" if found["recompute"] else "everything kept"
    lines = [
        f"one row of {asked.length:,} tokens: {peak:.1f} GB (estimated {found['estimate_mb'] / 1000:.1f}, given "
        f"{asked.memory_gb:.0f}), {found['tokens_a_second']:.0f} tokens/s, {how}"
    ]
    return _peers.told(asked, peak, asked.memory_gb, asked.memory_gb / peak, "GB", lines, **found)


if __name__ == "__main__":
    sys.exit(main())
