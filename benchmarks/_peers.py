"""Peers in virtual environments of their own, and what every benchmark does alike: children, machine, printing."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core import environment
from tunesmith.core.machine import inspect

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
DIALOGS = DATA / "summarization" / "dialogsum.dev.jsonl"
MODEL = "smollm2-135m-instruct"

BASE = ["torch==2.13.0", "transformers==5.23.0", "numpy==2.4.6"]
PEERS = {
    "trl": [*BASE, "trl==1.16.0", "peft==0.21.2", "datasets==5.2.0", "accelerate==1.15.0"],
    "lm_eval": [*BASE, "lm-eval==0.4.13", "accelerate==1.15.0", "datasets==5.2.0"],
    "llama_cpp": ["xllamacpp==2026.10.11549"],
}
"""What each peer's environment holds; pinned, so that a ratio means the same tomorrow."""


def python_of(peer: str) -> str:
    """The peer's Python; its environment is made under `benchmarks/.peers` when it is not there yet."""
    wanted = PEERS[peer]
    folder = HERE / ".peers" / f"{peer}-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:8]}"
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        print(f"setting up {peer}: {' '.join(wanted)}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *wanted]
        subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)
        done.touch()
    return str(python)


def child(python: str, script: Path, *arguments: str, **given: Any) -> dict[str, Any]:
    """Run a script in a process of its own, its last argument a file with `given`; the JSON of its last line."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "DO_NOT_TRACK": "1",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(given, file)
        file.flush()
        command = [python, str(script), *arguments, file.name]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{script.name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options all benchmarks have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    made.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    return made


def as_child(asked: argparse.Namespace, ours: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """What `child(sys.executable, script, "--ours", …)` runs: `ours` in the environment that the command makes."""
    environment.prepare()
    print(json.dumps(ours(json.loads(asked.ours.read_text(encoding="utf-8")))))
    return 0


def dialogs() -> tuple[Any, Any]:
    """The task of summarizing DialogSum, and its examples."""
    from tunesmith.core.config import resolve
    from tunesmith.recipes._work import read_examples

    return read_examples(
        resolve({"model": MODEL, "task": "summarization", "data": {"train": str(DIALOGS), "validation": 0.1}})
    )


def need_data(*paths: Path) -> None:
    """End with a word when the shared data are not here."""
    for path in paths:
        if not path.exists():
            raise SystemExit(f"{path}: not here; this benchmark reads the shared data folder")


def write_page(page: Path, script: Path, text: str) -> None:
    """Put `text` between the marks of `script` in a page of the docs; the words around them are a person's."""
    begin, end = f"<!-- benchmarks/{script.name} writes from here -->\n", "<!-- to here -->\n"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(f"{before}{begin}\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def told(
    asked: argparse.Namespace, ours: float, peer: float, ratio: float, unit: str, lines: Sequence[str], **more: Any
) -> int:
    """Print the lines for people, or the one object for machines. Gives the exit code: 0."""
    if asked.json:
        found = {"ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "machine": inspect(torch=True).as_dict()}
        print(json.dumps(found | more | {"lines": list(lines)}))
    else:
        print("\n".join(lines))
    return 0
