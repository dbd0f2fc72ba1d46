"""Is the memory estimate right? Short real runs, each in a process of its own, beside what was estimated for them.

    .venv/bin/python benchmarks/memory_estimate.py [--model NAME] [--only lora] [--json]

Rows are random tokens of uneven lengths, a sixteenth of them trained, four steps of one pack each. Measured is the peak
of resident memory (VmHWM) of the whole process. `ours` is the largest error of an estimate as a share of what was
measured, `peer` the 0.15 that is promised; `ratio` above 1 keeps the promise.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from typing import Any

import _peers

from tunesmith.core.config import Data, Project, choose
from tunesmith.core.machine import PeakMemory
from tunesmith.core.progress import quiet
from tunesmith.core.records import Encoded

PROMISED = 0.15
STEPS = 4
CASES: list[dict[str, Any]] = [
    {"method": {"name": "lora", "r": 16}, "tokens": 512, "length": 512},
    {"method": {"name": "lora", "r": 16}, "tokens": 1024, "length": 256},
    {"method": {"name": "lora", "r": 16}, "tokens": 2048, "length": 64},
    {"method": {"name": "lora", "r": 16}, "tokens": 2048, "length": 1024},
    {"method": {"name": "lora", "r": 16}, "tokens": 2048, "length": 256, "trained": 0.5},
    {"method": {"name": "lora", "r": 16, "dropout": 0.1}, "tokens": 1024, "length": 256},
    {"method": {"name": "lora", "r": 16}, "tokens": 1024, "length": 256, "even": True},
    {"method": {"name": "bitfit"}, "tokens": 1024, "length": 256},
    {"method": {"name": "prompt_tuning", "init": "random"}, "tokens": 1024, "length": 256},
    {"method": {"name": "full"}, "tokens": 1024, "length": 256},
]


def measure(case: dict[str, Any], name: str) -> dict[str, Any]:
    """Train for a few steps; MB estimated and measured."""
    import torch

    from tunesmith.engine.fit import Job, fit
    from tunesmith.engine.prepare import prepare
    from tunesmith.models.load import load

    prepared = prepare(load(name).model)
    method = choose("methods", **case["method"])
    torch.manual_seed(0)
    method.module.attach(prepared.model, method.config)
    prefix = method.module.prefix_tokens(prepared.model) if hasattr(method.module, "prefix_tokens") else ()
    generator, a_step = random.Random(0), max(1, case["tokens"] // case["length"])
    rows = [
        _row(generator, case["length"], case.get("trained", 1 / 16), case.get("even")) for _ in range(STEPS * a_step)
    ]
    project = Project(
        model=name,
        task=choose("tasks", "generation"),
        data=Data(train="rows"),
        method=method,
        objective=choose("objectives", "sft"),
        per_device_train_batch_size=a_step,
    )
    job = Job(prepared, project, rows, rows[:a_step], prefix)
    with PeakMemory() as peak, quiet():
        told = fit(job)
    parts = told.receipt["memory_estimate_mb"]
    return {**case, "parts": parts, "estimated": parts["total"], "measured": round(peak.mb), "seconds": told.seconds}


def _row(generator: random.Random, length: int, trained: float, even: bool | None) -> Encoded:
    size = length if even else round(length * generator.uniform(0.5, 1.5))
    answer = max(1, round(size * trained))
    ids = tuple(generator.randrange(1000, 40000) for _ in range(size))
    return Encoded(ids, (0.0,) * (size - answer) + (1.0,) * answer)


def main() -> int:
    """Run every case in a process of its own and print estimated beside measured."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--only", default="", help="the cases of one method")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(measure(json.loads(asked.case), asked.model)))
        return 0
    found, lines = [], list[str]()
    for case in CASES:
        if asked.only and case["method"]["name"] != asked.only:
            continue
        command = [sys.executable, __file__, "--model", asked.model, "--case", json.dumps(case)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(one := json.loads(output.splitlines()[-1]))
        keys = {key: value for key, value in case.items() if key != "method"}
        lines.append(
            f"{one['estimated']:6.0f} MB estimated {one['measured']:6.0f} measured "
            f"{one['estimated'] / one['measured']:5.2f}  {case['method']} {keys}"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    worst = max(abs(one["estimated"] / one["measured"] - 1) for one in found)
    lines.append(f"largest error {worst:.0%}; promised {PROMISED:.0%}")
    _peers.told(asked, worst, PROMISED, PROMISED / worst, "share of the peak", lines, cases=found)
    return 0 if worst <= PROMISED else 1


if __name__ == "__main__":
    sys.exit(main())
