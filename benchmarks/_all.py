"""Run every benchmark, one after the other, and write what they found into docs/performance.md.

make bench                                   # all of them
.venv/bin/python benchmarks/_all.py start    # these again; the others as they were last found (build/bench)
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from typing import Any

import _peers

RUNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("train_throughput", ()),
    ("train_throughput", ("--method", "full", "--steps", "3")),
    ("generate_throughput", ()),
    ("generate_throughput", ("--rows", "1", "--no-identity")),
    ("generate_throughput", ("--rows", "1", "--no-identity", "--precision", "int8")),
    ("shared_prefix", ()),
    ("long_rows", ()),
    ("start", ()),
    ("memory_estimate", ()),
    ("precision", ()),
    ("seeds", ()),
    ("growth", ()),
    ("waiting", ()),
)
GROWTH = _peers.HERE.parent / "docs" / "growth.png"
KEPT = _peers.HERE.parent / "build" / "bench"
PAGE = """\
# Performance

Written by `benchmarks/_all.py` on {day}. In each line ours and the peer's come from one run of one script.

Machine: {processor}, {cores} cores, {memory:.0f} GB, products in {precision}. Versions: {versions}.

| benchmark | ours | peer | ratio (above 1: ours is better) | unit |
|---|---|---|---|---|
{table}

{details}
"""


def one(script: str, arguments: tuple[str, ...]) -> dict[str, Any] | None:
    """Run a benchmark; its JSON object, or None where it cannot run here (it says why)."""
    command = [sys.executable, str(_peers.HERE / f"{script}.py"), *arguments, "--json"]
    print("==", " ".join(command[1:]), flush=True)
    begun = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    if not lines or not lines[-1].startswith("{"):
        print(f"   no result (exit {done.returncode})", flush=True)
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    for line in found.get("lines", []):
        print("  ", line)
    print(f"   {time.perf_counter() - begun:.0f} s", flush=True)
    return found


def main() -> int:
    """Run all, or those named, and write the page of all that were found."""
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted, found = sys.argv[1:], []
    for script, rest in RUNS:
        name = " ".join((script, *rest))
        kept = KEPT / f"{name.replace(' ', '_')}.json"
        if not wanted or script in wanted:
            kept.unlink(missing_ok=True)
            if (result := one(script, rest)) is not None:
                kept.write_text(json.dumps(result), encoding="utf-8")
        found.append((name, json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else None))
    there = [(name, result) for name, result in found if result is not None]
    if not there:
        return 1
    machine = there[0][1]["machine"]
    table = "\n".join(
        f"| `{name}` | {r['ours']:,.4g} | {r['peer']:,.4g} | {r['ratio']:.2f} | {r['unit']} |" for name, r in there
    )
    details = "\n\n".join(
        f"## `benchmarks/{name.split()[0]}.py {' '.join(name.split()[1:])}`".rstrip("` ")
        + "`\n\n```\n"
        + "\n".join(result.get("lines", []))
        + "\n```"
        for name, result in there
        if result.get("lines")
    )
    page = PAGE.format(
        day=datetime.date.today().isoformat(),
        processor=machine["processor"],
        cores=machine["cores"],
        memory=machine["memory_gb"],
        precision=machine["precision"],
        versions=", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        table=table,
        details=details + (f"\n\n![How the time of a token grows]({GROWTH.name})" if GROWTH.exists() else ""),
    )
    (_peers.HERE.parent / "docs" / "performance.md").write_text(page, encoding="utf-8")
    missing = [name for name, result in found if result is None]
    print(f"docs/performance.md written; without a result: {', '.join(missing) or 'none'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
