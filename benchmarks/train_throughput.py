"""Tokens a second and peak memory of fine-tuning on DialogSum, beside TRL and peft on the very same rows.

    .venv/bin/python benchmarks/train_throughput.py [--method lora|full] [--steps 5] [--json]

SmolLM2-135M-Instruct, 8 rows a step, LoRA r=16 on all linear layers (or all weights). Every run has a process of its
own; a figure is the median over its steps but the first. TRL runs with its defaults (`use_cpu=True`) and without
gradient checkpointing. `ours` and `peer` are tokens a second beside TRL's defaults.
The wall is what the matrix products of all parameters alone would allow, ``rate / (4 · parameters)`` for LoRA and
``/ (6 · parameters)`` for all weights, at the rate of a large bfloat16 product: the mean of what it is in our process
before its steps and after them, each the best of 20.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _peers

ROWS_A_STEP = 8
PARAMETERS = 134_515_008


def rows(steps: int) -> list[dict[str, Any]]:
    """Encoded DialogSum rows for so many steps, in our order: `ids` and `weights`."""
    from tunesmith.recipes._bench import encode
    from tunesmith.recipes._work import open_model

    project, examples = _peers.dialogs()
    encoded, _ = encode(project, open_model(project.model), examples.train)
    return [{"ids": row.ids, "weights": row.weights} for row in encoded[: steps * ROWS_A_STEP]]


def ours(given: dict[str, Any]) -> dict[str, Any]:
    """Train with Tunesmith's own loop; seconds of each step and the peak of the process."""
    import torch

    from tunesmith.core.config import resolve
    from tunesmith.core.machine import peak_mb
    from tunesmith.core.progress import quiet
    from tunesmith.core.records import Encoded
    from tunesmith.engine.fit import Job, fit
    from tunesmith.recipes._work import open_model

    method = {"name": "lora", "r": 16, "alpha": 32} if given["method"] == "lora" else {"name": "full"}
    project = resolve({"model": _peers.MODEL, "task": "summarization", "data": {"train": "-"}, "method": method})
    project = project.model_copy(update={"per_device_train_batch_size": ROWS_A_STEP, "learning_rate": 2e-5})
    encoded = [Encoded(tuple(row["ids"]), tuple(row["weights"])) for row in given["rows"]]
    model = open_model(project.model)
    torch.manual_seed(0)
    project.method.module.attach(model.loaded.model, project.method.config)
    job, times = Job(model.prepared, project, encoded, steps=given["steps"]), [time.perf_counter()]
    job._orders = {0: list(range(len(encoded)))}
    rates = [rate()]
    with quiet():
        done = fit(job, lambda step: times.append(time.perf_counter()))
    times[0] = times[1] - 1.0  # the first step is not counted
    told = {"times": times, "peak_mb": peak_mb(), "estimate_mb": done.receipt["memory_estimate_mb"]["total"]}
    return told | {"rates": [*rates, rate()]}


def rate() -> float:
    """Operations a second of a large product at the precision of products."""
    import torch

    from tunesmith.engine.prepare import product_precision

    dtype = product_precision("auto")
    one, other = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - begun)
    return 2 * 2048**3 / best


def speed(found: dict[str, Any], tokens: list[int]) -> float:
    """Median tokens a second over all steps but the first."""
    times = found["times"]
    return statistics.median(t / (b - a) for t, a, b in list(zip(tokens, times, times[1:], strict=False))[1:])


def main() -> int:
    """Run everything one after the other and print the table."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--steps", type=int, default=5)
    asked = parser.parse_args()
    if asked.ours:
        return _peers.as_child(asked, ours)
    _peers.need_data(_peers.DIALOGS)
    from tunesmith.models.source import fetch

    given: dict[str, Any] = {"rows": rows(asked.steps), "steps": asked.steps, "method": asked.method}
    given |= {"model": str(fetch(_peers.MODEL)), "rows_a_step": ROWS_A_STEP}
    tokens = [
        sum(len(row["ids"]) for row in given["rows"][at : at + ROWS_A_STEP])
        for at in range(0, len(given["rows"]), ROWS_A_STEP)
    ]
    trl, script = _peers.python_of("trl"), _peers.HERE / "_trl_sft.py"
    runs = {
        "Tunesmith": _peers.child(sys.executable, Path(__file__), "--ours", **given),
        "TRL, its defaults": _peers.child(trl, script, **given, checkpointing=True),
        "TRL, no gradient checkpointing": _peers.child(trl, script, **given, checkpointing=False),
    }
    limit = statistics.mean(runs["Tunesmith"]["rates"]) / ((4 if asked.method == "lora" else 6) * PARAMETERS)
    found = {name: {"tokens_a_second": speed(run, tokens), "peak_mb": run["peak_mb"]} for name, run in runs.items()}
    mine = found["Tunesmith"]
    lines = [f"{asked.method}, {sum(tokens[1:]):,} tokens in {asked.steps - 1} steps of {ROWS_A_STEP} rows"]
    lines += [
        f"{name:32s} {one['tokens_a_second']:6.0f} tokens/s {one['peak_mb'] / 1000:5.1f} GB   "
        f"ours is {mine['tokens_a_second'] / one['tokens_a_second']:.2f} times as fast, "
        f"with {mine['peak_mb'] / one['peak_mb']:.2f} of the memory"
        for name, one in found.items()
    ]
    lines += [
        f"{'the wall of products':32s} {limit:6.0f} tokens/s   ours reaches {mine['tokens_a_second'] / limit:.0%}"
    ]
    peer = found["TRL, its defaults"]["tokens_a_second"]
    speed_of_ours = mine["tokens_a_second"]
    return _peers.told(
        asked, speed_of_ours, peer, speed_of_ours / peer, "tokens/s", lines, runs=found, wall=limit, method=asked.method
    )


if __name__ == "__main__":
    sys.exit(main())
