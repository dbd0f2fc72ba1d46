"""The whole shelf on 1,000 rows of SST-2, each method the same seconds to learn: writes docs/methods.md.

    .venv/bin/python benchmarks/methods.py [--model smollm2-135m-instruct] [--only lora,bitfit] [--seconds 60] [--json]

Each method has a process of its own, races over learning rates first (within its seconds) and is measured on 872 other
rows. Results are kept in build/methods, so that `--only` measures some again and the page shows all. `ours` is the best
method's accuracy, `peer` that of asking without examples.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import _peers
import _rung

ROWS = 872
KEPT = _peers.HERE.parent / "build" / "methods"
PAGE = _peers.HERE.parent / "docs" / "methods.md"
PROMPTS = ("zero_shot", "few_shot")


def line(name: str, one: dict[str, Any]) -> str:
    """A row of the table."""
    from tunesmith.evaluation import amounts

    if one["value"] is None:
        return f"| {name} | {one['reason']} | | | | | |"
    share = "–" if not one["share"] else f"{100 * one['share']:.2g} %" if one["share"] < 0.5 else "all"
    kl = "–" if one["forgetting_kl"] is None else f"{one['forgetting_kl']:.2f}"
    quality = f"{one['value']:.3f} ({one['low']:.3f}–{one['high']:.3f})"
    return (
        f"| {name} | {quality} | {amounts.duration(one['train_seconds'])} "
        f"| {amounts.memory(one['peak_memory_mb'])} | {share} | {amounts.size(one['artifact_bytes'])} | {kl} |"
    )


def table(model: str, found: dict[str, dict[str, Any]]) -> str:
    """The methods from best to worst, the prompts among them."""
    ranked = sorted(found.items(), key=lambda one: -(one[1]["value"] or 0.0))
    head = "| method | accuracy (95 %) | learned in | memory | trained | artifact | forgot (KL) |\n" + "|---" * 7 + "|"
    seconds = next(iter(found.values()))["given_seconds"]
    told = f"### {model}\n\n{seconds:.0f} seconds each to learn from 1,000 rows of SST-2, measured on {ROWS} others.\n"
    return "\n".join([told, head, *(line(name, one) for name, one in ranked)])


def write(machine: dict[str, Any]) -> None:
    """Put every table that is kept into the page, with where and when it was measured."""
    parts = []
    for folder in sorted(KEPT.iterdir()):
        found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
        if found:
            parts.append(table(folder.name, found))
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    where = f"{machine['processor']}, {machine['cores']} cores; {versions}; {datetime.date.today().isoformat()}."
    _peers.write_page(PAGE, Path(__file__), "\n\n".join([*parts, where]))


def main() -> int:
    """Measure what was asked for, write the page, print the table."""
    from tunesmith.core.machine import inspect
    from tunesmith.core.rooms import names
    from tunesmith.recipes.methods import methods

    parser = _peers.parser(__doc__)
    parser.add_argument("--model", default=_peers.MODEL)
    parser.add_argument("--only", default="", help="names of methods, with commas between")
    parser.add_argument("--seconds", type=float, default=60.0, help="to learn, racing over learning rates included")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page of what is kept")
    asked = parser.parse_args()
    _peers.need_data(Path(_rung.SST2["data"]["train"]))
    folder = KEPT / asked.model
    folder.mkdir(parents=True, exist_ok=True)
    total = max(one["total"] or 1 for one in methods(asked.model))
    wanted = asked.only.split(",") if asked.only else [*PROMPTS, *names("methods")]
    for name in () if asked.page else wanted:
        try:
            one = _rung.measured({"model": asked.model, **_rung.SST2}, name, seconds=asked.seconds, rows=ROWS)
        except SystemExit as failed:
            print(f"{name}: {failed}"[-600:], file=sys.stderr)
            continue
        one |= {"given_seconds": asked.seconds, "share": one["trainable_parameters"] / total}
        (folder / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")
        print(line(name, one), file=sys.stderr, flush=True)
    machine = inspect(torch=True).as_dict()
    write(machine)
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")}
    plain = found["zero_shot"]["value"] if "zero_shot" in found else float("nan")
    best = max((one["value"] or 0.0 for name, one in found.items() if name not in PROMPTS), default=plain)
    lines = table(asked.model, found).splitlines()
    return _peers.told(asked, best, plain, best / plain, "accuracy", lines, methods=found)


if __name__ == "__main__":
    sys.exit(main())
