"""Does LoRA learn at bfloat16 products as in float32? The first steps of both on DialogSum, same seed, side by side.

    .venv/bin/python benchmarks/precision.py [--steps 20] [--json]

The peer is our own engine in float32 throughout; `ours` is the largest difference of the loss at any step, in nats a
token, and the promise is 0.02. `ratio` is the promise over what was seen: above 1 it is kept. Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tunesmith.core.config import Project, resolve
from tunesmith.core.machine import inspect
from tunesmith.core.seed import seed_everything

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "summarization" / "dialogsum.dev.jsonl"
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
            "data": {"train": str(DATA), "validation": 0.1, "test": 0.1},
            "method": {"name": "lora", "r": 16, "alpha": 32},
            "learning_rate": rate,
            "precision": precision,
            "max_steps": steps,
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not DATA.exists():
        print(f"{DATA}: not here; this benchmark reads the shared data folder", file=sys.stderr)
        return 2
    ours, peer = (losses(precision, asked.steps, asked.learning_rate) for precision in ("bfloat16", "float32"))
    apart = [abs(a - b) for a, b in zip(ours, peer, strict=True)]
    if not asked.json:
        print("step  bfloat16  float32  apart")
        for step, (a, b, d) in enumerate(zip(ours, peer, apart, strict=True), start=1):
            print(f"{step:4d}  {a:8.4f} {b:8.4f} {d:6.4f}")
        print(f"largest difference {max(apart):.4f} nats; promised below {BOUND}")
    told: dict[str, Any] = {"ours": max(apart), "peer": BOUND, "ratio": BOUND / max(apart), "unit": "nats"}
    told |= {"machine": inspect(torch=True).as_dict(), "bfloat16": ours, "float32": peer}
    if asked.json:
        print(json.dumps(told))
    return 0 if max(apart) <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
