"""One rung of a task in a process of its own, as methods.py, tasks.py and forgetting.py measure them."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import _peers

from tunesmith.core import environment

DATA = _peers.DATA
SST2: dict[str, Any] = {
    "task": {
        "name": "classification",
        "instruction": "Is the sentiment of this movie review negative or positive?",
        "labels": ["negative", "positive"],
    },
    "data": {
        "train": str(DATA / "sentiment" / "sst2.train.tsv"),
        "validation": 0.03,
        "test": str(DATA / "sentiment" / "sst2.dev.tsv"),
        "max_rows": 1000,
    },
}
"""1,000 rows of SST-2 to learn from, 872 others to measure on."""


def measured(task: dict[str, Any], rung: str, *, seconds: float, rows: int) -> dict[str, Any]:
    """The outcome of a rung that has `seconds` to learn, on the first `rows` test rows; see `recipes._outcome`."""
    return _peers.child(sys.executable, Path(__file__), task=task, rung=rung, seconds=seconds, rows=rows)


def _measure(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    from tunesmith.core.config import resolve
    from tunesmith.recipes._bench import open_bench, read_as
    from tunesmith.recipes._rungs import few_shot, trained, zero_shot
    from tunesmith.recipes._work import read_examples

    project, examples = read_examples(resolve({**given["task"], "output_dir": str(folder)}))
    rung, seconds = given["rung"], given["seconds"]
    bench = open_bench(project, examples, folder, seconds)
    rows = examples.test[: given["rows"]]
    if rung in ("zero_shot", "few_shot"):
        bench.seconds_per_query = bench.answerer.answer(rows[:32]).seconds_per_query
        bench.validation = rows
        tried = zero_shot(bench, folder / rung) if rung == "zero_shot" else few_shot(bench, folder / rung, seconds)
    else:
        bench.validation, bench.seconds_per_query, bench.forgetting_seconds = rows, 0.0, 0.0  # learning time alone
        tried = trained(read_as(bench, rung), rung, folder / rung, seconds)
    return asdict(tried.outcome)


if __name__ == "__main__":
    environment.prepare()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(_measure(json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8")), Path(place))))
