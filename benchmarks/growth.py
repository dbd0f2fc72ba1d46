"""How the time of a token grows: with the rows there are, with their length, with the rank. Draws docs/growth.png.

    .venv/bin/python benchmarks/growth.py [--json]

LoRA on SmolLM2-135M-Instruct, random tokens, a sixteenth of them trained. Milliseconds a token: the median of two steps
after a first one, of six for the rows there are, one for the three longest lengths. `ours` is the largest share by
which ten times the rows make a token dearer, `peer` is 1.1 (linear, to a tenth).
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import pairwise
from typing import Any

import _peers

from tunesmith.core import environment

ROWS, LENGTHS, RANKS = (1_000, 10_000, 100_000), (128, 256, 512, 1024, 2048, 4096, 8192), (4, 16, 64, 256)
BOUND = 1.1


class Bench:
    """The model, and steps on made-up rows."""

    def __init__(self) -> None:
        from tunesmith.core.config import resolve
        from tunesmith.recipes._work import open_model

        self.project = resolve({"model": _peers.MODEL, "task": "generation", "data": {"train": "-"}, "method": "lora"})
        self.model = open_model(self.project.model)

    def milliseconds(
        self, *, rows: int = 64, length: int = 128, rank: int = 16, a_step: int = 8, steps: int = 3
    ) -> float:
        """Milliseconds a token, the median of all steps but the first."""
        from tunesmith.core.config import choose
        from tunesmith.core.progress import quiet
        from tunesmith.engine.fit import Job, fit

        method = choose("methods", "lora", r=rank)
        project = self.project.model_copy(update={"method": method, "per_device_train_batch_size": a_step})
        method.module.attach(self.model.loaded.model, method.config)
        times: list[float] = []
        try:
            with quiet():
                job = Job(self.model.prepared, project, self.made(rows, length), steps=steps)
                fit(job, lambda step: times.append(time.perf_counter()))
        finally:
            method.module.detach(self.model.loaded.model)
        return 1e3 * statistics.median(b - a for a, b in pairwise(times)) / (length * a_step)

    def made(self, count: int, length: int) -> list[Any]:
        """Rows of random tokens."""
        import torch

        from tunesmith.core.records import Encoded

        ids = torch.randint(1000, 40000, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
        answer = max(1, length // 16)
        return [Encoded(tuple(one), (0.0,) * (length - answer) + (1.0,) * answer) for one in ids]


def draw(found: dict[str, dict[int, float]]) -> None:
    """The three curves side by side, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.2), sharey=True)
    for axis, (name, curve) in zip(axes, found.items(), strict=True):
        axis.plot(list(curve), list(curve.values()), marker="o", color="#0b5cad")
        axis.set(xscale="log", xlabel=name)
        axis.set_xticks(list(curve), [f"{x:,}" for x in curve], rotation=45)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="ms a token", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(_peers.HERE.parent / "docs" / "growth.png", dpi=110)


def main() -> int:
    """Measure the three curves, draw them, print them."""
    asked = _peers.parser(__doc__).parse_args()
    environment.prepare()
    bench = Bench()
    found = {
        "rows there are": {rows: bench.milliseconds(rows=rows, steps=7) for rows in ROWS},
        "tokens in a row": {
            n: bench.milliseconds(rows=8, length=n, a_step=max(1, 1024 // n), steps=3 if n < 2048 else 2)
            for n in LENGTHS
        },
        "rank": {rank: bench.milliseconds(rank=rank) for rank in RANKS},
    }
    draw(found)
    curve = list(found["rows there are"].values())
    worst = max(b / a for a, b in pairwise(curve))
    lines = [f"{name:16s} " + "  ".join(f"{x:,}: {y:.2f} ms" for x, y in one.items()) for name, one in found.items()]
    lines.append(f"ten times the rows make a token {worst:.2f} times as dear; linear to a tenth is {BOUND}")
    return _peers.told(asked, worst, BOUND, BOUND / worst, "ratio", lines, curves=found)


if __name__ == "__main__":
    sys.exit(main())
