"""Does LoRA learn at bfloat16 products as in float32? The first steps of both on DialogSum, 4 rows each, same seed.

    .venv/bin/python benchmarks/precision.py [--steps 20] [--json]

The peer is our own engine in float32 throughout; `ours` is the largest difference of the loss at any step, in nats a
token, and the promise is 0.02. `ratio` is the promise over what was seen: above 1 it is kept. Needs ../shared/data.
"""

from __future__ import annotations

import sys

import _peers

from tunesmith.core import environment
from tunesmith.core.config import Project, resolve
from tunesmith.core.seed import seed_everything

BOUND = 0.02


def losses(precision: str, steps: int, rate: float) -> list[float]:
    """The loss of each of the first steps, nats a token."""
    from tunesmith.engine.fit import Job, fit
    from tunesmith.recipes._bench import encode
    from tunesmith.recipes._work import open_model, read_examples

    project: Project = resolve(
        {
            "model": "smollm2-135m-instruct",
            "task": {"name": "summarization"},
            "data": {"train": str(_peers.DIALOGS), "validation": 0.1, "test": 0.1},
            "method": {"name": "lora", "r": 16, "alpha": 32},
            "learning_rate": rate,
            "precision": precision,
            "max_steps": steps,
            "per_device_train_batch_size": 4,
        }
    )
    project, examples = read_examples(project)
    model = open_model(project.model, project.precision)
    encoded, _ = encode(project, model, examples.train)
    seed_everything(project.seed)
    project.method.module.attach(model.loaded.model, project.method.config)
    seen: list[float] = []
    fit(Job(model.prepared, project, encoded, steps=steps, description=precision), lambda step: seen.append(step.loss))
    return seen


def main() -> int:
    """Run both, print the steps side by side."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    asked = parser.parse_args()
    _peers.need_data(_peers.DIALOGS)
    environment.prepare()
    ours, peer = (losses(precision, asked.steps, asked.learning_rate) for precision in ("bfloat16", "float32"))
    apart = [abs(a - b) for a, b in zip(ours, peer, strict=True)]
    lines = ["step  bfloat16  float32  apart"]
    lines += [
        f"{i:4d}  {a:8.4f} {b:8.4f} {d:6.4f}" for i, (a, b, d) in enumerate(zip(ours, peer, apart, strict=True), 1)
    ]
    lines.append(f"largest difference {max(apart):.4f} nats; promised below {BOUND}")
    _peers.told(asked, max(apart), BOUND, BOUND / max(apart), "nats", lines, bfloat16=ours, float32=peer)
    return 0 if max(apart) <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
