"""What tuning forgets, and what each remedy brings and costs: three tasks, LoRA and all weights, the same steps.

    .venv/bin/python benchmarks/forgetting.py [--steps 40] [--only classification] [--remedies none,l2] [--json]

Each run has a process of its own and takes the same steps at the same learning rate, so only the remedy differs.
Results are kept in build/forgetting (what is there is not run again without `--again`) and written as a table into
docs/forgetting.md. `ours` is the mean KL from the base with `forgetting: {kl: 0.3}`, `peer` without, over tasks and
methods; `ratio` above 1: so much less is forgotten.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import _peers
import tasks

from tunesmith.core import environment

KEPT = _peers.HERE.parent / "build" / "forgetting"
PAGE = _peers.HERE.parent / "docs" / "forgetting.md"
TASKS = ("classification", "ner", "summarization")
RATES = {"lora": 5e-4, "full": 5e-5}
REMEDIES: dict[str, dict[str, Any]] = {
    "none": {},
    "replay 0.2": {"replay": 0.2},
    "kl 0.3": {"kl": 0.3},
    "l2": {"l2": 0.1},
}
ROWS = {"classification": 400, "ner": 200, "summarization": 60}


def train(given: dict[str, Any]) -> dict[str, Any]:
    """Train as the task file says, measure on test rows; what the table needs of it."""
    import tunesmith

    keys = given["task"]
    result = tunesmith.train(keys)
    found = tunesmith.evaluate(keys, artifact=keys["output_dir"], limit=given["rows"])
    wanted = ("metric", "value", "low", "high", "n")
    lost = {key: result[key] for key in ("forgetting_kl", "forgetting_bits_per_byte", "train_seconds")}
    return {key: found[key] for key in wanted} | lost


def line(name: str, one: dict[str, Any]) -> str:
    """A row of the table."""
    task, method, remedy = name.split(",")
    return (
        f"| {task} | {method} | {remedy} | {one['metric'].replace('_', ' ')} {one['value']:.3f} "
        f"({one['low']:.3f}–{one['high']:.3f}) | {one['forgetting_kl']:.3f} "
        f"| {one['forgetting_bits_per_byte']:+.3f} | {one['train_seconds']:.0f} s |"
    )


def main() -> int:
    """Run what was asked for, write the page, print the table."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--only", default="", help="names of tasks, with commas between")
    parser.add_argument("--remedies", default=",".join(REMEDIES), help="names of remedies, with commas between")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--again", action="store_true", help="measure what is kept as well")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page of what is kept")
    asked = parser.parse_args()
    if asked.ours:
        return _peers.as_child(asked, train)
    _peers.need_data(_peers.DIALOGS)
    environment.prepare()
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted = () if asked.page else asked.only.split(",") if asked.only else TASKS
    with tempfile.TemporaryDirectory() as place:
        known = tasks.tasks(Path(place))
        for method, rate in RATES.items():
            for task in wanted:
                for remedy in asked.remedies.split(","):
                    name = f"{task},{method},{remedy}"
                    if (KEPT / f"{name}.json").exists() and not asked.again:
                        continue
                    keys = {
                        **known[task][1],
                        "model": _peers.MODEL,
                        "method": method,
                        "learning_rate": rate,
                        "max_steps": asked.steps,
                        "forgetting": REMEDIES[remedy],
                        "budget": {"minutes": 60},
                        "output_dir": str(Path(place) / name.replace(",", "-").replace(" ", "-")),
                    }
                    one = _peers.child(sys.executable, Path(__file__), "--ours", task=keys, rows=ROWS[task])
                    (KEPT / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")
                    print(line(name, one), file=sys.stderr, flush=True)
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(KEPT.glob("*.json"))}
    head = "| task | trained | remedy | quality | forgot (KL) | bits per byte | training |\n" + "|---" * 7 + "|"
    table = "\n".join([head, *(line(name, one) for name, one in found.items())])
    _peers.write_page(PAGE, Path(__file__), table)
    held, plain = (
        [one["forgetting_kl"] for name, one in found.items() if name.endswith(ending)] for ending in ("kl 0.3", "none")
    )
    ours, peer = sum(held) / len(held), sum(plain) / len(plain)
    return _peers.told(asked, ours, peer, peer / ours, "nats a token", table.splitlines(), runs=found)


if __name__ == "__main__":
    sys.exit(main())
