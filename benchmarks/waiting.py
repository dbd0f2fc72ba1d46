"""What waiting threads cost: LoRA steps with threads that spin without end, for a while, or not at all.

    .venv/bin/python benchmarks/waiting.py [--json]

`ours` are the tokens a second of Tunesmith's own choice on an idle machine, `peer` those of threads that never spin.
The table also says what each does beside one busy process. Each figure is the best step of a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import _peers

WAYS = {
    "spins without end": {"OMP_WAIT_POLICY": "ACTIVE"},
    "spins 2,000 turns": {"GOMP_SPINCOUNT": "2000"},
    "never spins": {"GOMP_SPINCOUNT": "0"},
}
LIMIT_SECONDS = 25


def steps() -> None:
    """Train a few steps on made-up rows and print the tokens a second of each."""
    import torch

    from tunesmith.core.config import resolve
    from tunesmith.core.records import Encoded
    from tunesmith.engine.fit import Job, fit
    from tunesmith.recipes._work import open_model

    project = resolve(
        {"model": "smollm2-135m-instruct", "task": "generation", "data": {"train": "-"}, "method": "lora"}
    ).model_copy(update={"per_device_train_batch_size": 32})
    model = open_model(project.model)
    generator = torch.Generator().manual_seed(0)
    rows = [
        Encoded(tuple(torch.randint(1000, 40000, (33,), generator=generator).tolist()), (0.0,) * 25 + (1.0,) * 8)
        for _ in range(256)
    ]
    project.method.module.attach(model.loaded.model, project.method.config)
    before = time.monotonic()

    def told(step: object) -> None:
        nonlocal before
        now = time.monotonic()
        print(32 * 32 / (now - before), flush=True)
        before = now

    fit(Job(model.prepared, project, rows, steps=10), told)


def best(way: dict[str, str]) -> float:
    """Tokens a second of the best step, 0 when none was done in time."""
    chosen = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {key: value for key, value in os.environ.items() if key not in chosen}
    command = [sys.executable, __file__, "--steps"]
    try:
        done = subprocess.run(
            command, env={**environment, **way}, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
        printed = done.stdout
    except subprocess.TimeoutExpired as late:
        printed = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
    return max((float(line) for line in printed.split()), default=0.0)


def main() -> int:
    """Measure every way alone and beside one busy process."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--steps", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.steps:
        steps()
        return 0
    alone = {name: best(way) for name, way in WAYS.items()}
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    beside = {name: best(way) for name, way in WAYS.items()}
    busy.kill()
    lines = [
        f"{name:20s} {alone[name]:6.0f} tokens/s alone, {beside[name]:6.0f} beside a busy process" for name in WAYS
    ]
    ours, peer = alone["spins 2,000 turns"], alone["never spins"]
    return _peers.told(asked, ours, peer, ours / peer, "tokens/s", lines, alone=alone, beside=beside)


if __name__ == "__main__":
    sys.exit(main())
