"""Does a run at bfloat16 products end where the same run in float32 ends? Two hundred steps, three seeds, both.

    .venv/bin/python benchmarks/seeds.py [--steps 200] [--seeds 3] [--json]

LoRA on 1,000 rows of SST-2 of up to 12 words, 4 rows a step; a seed draws the adapter's start and the order of rows.
Measured is the loss on 200 other such rows at the end, nats a token. `ours` is the distance between the means of both
precisions, `peer` the mean distance between two seeds in float32: noise that nobody can help. `ratio` above 1:
precision costs less than that. (The two runs of one seed part as two seeds do: after some steps any rounding is another
draw.)
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import _peers
import _rung

TRAINED, ROWS, WORDS = 1000, 200, 12


def train(given: dict[str, Any]) -> dict[str, Any]:
    """Train one seed at one precision; the loss on the other rows."""
    from tunesmith.core.config import resolve
    from tunesmith.core.seed import seed_everything
    from tunesmith.engine.fit import Job, fit
    from tunesmith.recipes._bench import encode
    from tunesmith.recipes._work import open_model, read_examples

    data = {key: value for key, value in _rung.SST2["data"].items() if key != "max_rows"}
    keys = {
        "model": _peers.MODEL,
        **_rung.SST2,
        "data": data,
        "precision": given["precision"],
        "per_device_train_batch_size": 4,
        "method": "lora",
        "learning_rate": 5e-4,
    }
    project, examples = read_examples(resolve(keys))
    project = project.model_copy(update={"seed": given["seed"]})
    model = open_model(project.model, project.precision)
    encoded, _ = encode(project, model, short(examples.train)[:TRAINED])
    others, _ = encode(project, model, short(examples.test)[:ROWS])
    seed_everything(given["seed"])
    project.method.module.attach(model.loaded.model, project.method.config)
    fit(
        Job(model.prepared, project, encoded, steps=given["steps"], description=f"{given['precision']} {given['seed']}")
    )
    return {"loss": Job(model.prepared, project, encoded, others).validation_loss()}


def short(rows: Sequence[Any]) -> list[Any]:
    """Those of few words: six runs are to take minutes."""
    return [row for row in rows if len(row.input.split()) <= WORDS]


def main() -> int:
    """Run every seed at both precisions and set them side by side."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    if asked.ours:
        return _peers.as_child(asked, train)
    _peers.need_data(_peers.DIALOGS)
    found = {
        precision: [
            _peers.child(sys.executable, Path(__file__), "--ours", precision=precision, seed=seed, steps=asked.steps)[
                "loss"
            ]
            for seed in range(asked.seeds)
        ]
        for precision in ("bfloat16", "float32")
    }
    apart, noise, lines = compared(found)
    lines.insert(0, f"loss after {asked.steps} steps on {ROWS} other rows, nats a token; a column for each seed")
    return _peers.told(asked, apart, noise, noise / apart, "nats", lines, losses=found)


def compared(found: dict[str, list[float]]) -> tuple[float, float, list[str]]:
    """How far the precisions' means are apart, and two seeds in float32 on average; and a line for each of it."""
    means = {precision: statistics.mean(losses) for precision, losses in found.items()}
    apart = abs(means["bfloat16"] - means["float32"])
    noise = statistics.mean(abs(a - b) for a, b in combinations(found["float32"], 2))
    same = statistics.mean(abs(a - b) for a, b in zip(*found.values(), strict=True))
    lines = [
        f"{precision:10s}" + "".join(f"{loss:8.4f}" for loss in losses) + f"   mean {means[precision]:.4f}"
        for precision, losses in found.items()
    ]
    lines.append(
        f"the means are {apart:.4f} apart, two seeds in float32 {noise:.4f}, two precisions of a seed {same:.4f}"
    )
    return apart, noise, lines


if __name__ == "__main__":
    sys.exit(main())
