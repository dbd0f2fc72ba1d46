"""Every task, asked plainly and tuned: the same model on seven kinds of work, on public data.

    .venv/bin/python benchmarks/tasks.py [--only summarization,ner] [--seconds 150] [--method lora] [--json]

Each task is asked without examples and then tuned for the same seconds, both measured on the same test rows, each in a
process of its own. Results are kept in build/tasks and written as a table into docs/tasks.md. `ours` and `peer` are the
tuned and the plain value of the tasks' metrics, averaged (BLEU and chrF as shares of 100, perplexity left out).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import _peers
import _rung

DATA = _peers.DATA
KEPT = _peers.HERE.parent / "build" / "tasks"
PAGE = _peers.HERE.parent / "docs" / "tasks.md"


def tasks(place: Path) -> dict[str, tuple[str, dict[str, Any], int]]:
    """By task: what the data are, the task file, and the test rows."""
    return {
        "classification": ("SST-2, 6,920 sentences", {**_rung.SST2, "data": _without_limit(_rung.SST2["data"])}, 872),
        "ner": (
            "WNUT-17, 3,394 sentences",
            {
                "task": "ner",
                "data": {
                    "train": str(DATA / "ner" / "wnut17train.conll"),
                    "validation": 0.05,
                    "test": str(DATA / "ner" / "emerging.test.annotated"),
                },
            },
            400,
        ),
        "summarization": (
            "DialogSum, 500 dialogues",
            {
                "task": "summarization",
                "data": {
                    "train": str(_peers.DIALOGS),
                    "validation": 0.1,
                    "test": str(DATA / "summarization" / "dialogsum.test.jsonl"),
                },
            },
            100,
        ),
        "translation": (
            "Multi30k, 5,000 captions, English to German",
            {
                "task": {"name": "translation", "source_language": "English", "target_language": "German"},
                "data": {
                    "train": str(DATA / "translation" / "train.{en,de}.gz"),
                    "validation": str(DATA / "translation" / "val.{en,de}.gz"),
                    "test": str(DATA / "translation" / "test_2016_flickr.{en,de}.gz"),
                    "max_rows": 5000,
                },
            },
            200,
        ),
        "question_answering": (
            "XQuAD English, 1,190 questions, four fifths to learn from",
            {
                "task": "question_answering",
                "data": {"train": str(DATA / "qa" / "xquad.en.json"), "validation": 0.05, "test": 0.15},
            },
            150,
        ),
        "generation": (
            "Alpaca, 999 instructions",
            {
                "task": "generation",
                "data": {
                    "train": str(DATA / "instruction" / "alpaca_en_demo.json"),
                    "validation": 0.05,
                    "test": 0.15,
                },
            },
            100,
        ),
        "chat": (
            "instruction data as conversations, 1,100",
            {"task": "chat", "data": {"train": str(conversations(place)), "validation": 0.05, "test": 0.15}},
            100,
        ),
    }


def conversations(place: Path) -> Path:
    """The instruction data as a file of conversations."""
    rows = json.loads((DATA / "instruction" / "rasbt_instruction_data.json").read_text(encoding="utf-8"))
    file = place / "conversations.jsonl"
    with file.open("w", encoding="utf-8") as into:
        for row in rows:
            asked = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
            into.write(json.dumps({"messages": turns}) + "\n")
    return file


def line(name: str, one: dict[str, Any]) -> str:
    """A row of the table."""
    from tunesmith.evaluation import amounts

    plain, tuned = one["plain"], one["tuned"]

    def value(side: dict[str, Any]) -> str:
        return f"{side['value']:.3f} ({side['low']:.3f}–{side['high']:.3f})"

    return (
        f"| {name} | {one['data']} | {tuned['metric'].replace('_', ' ')}, {tuned['n']} rows | {value(plain)} "
        f"| {value(tuned)} | {amounts.duration(tuned['train_seconds'])} | {amounts.memory(tuned['peak_memory_mb'])} "
        f"| {tuned['forgetting_kl']:.2f} |"
    )


def main() -> int:
    """Measure what was asked for, write the page, print the table."""
    parser = _peers.parser(__doc__)
    parser.add_argument("--only", default="", help="names of tasks, with commas between")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--seconds", type=float, default=150.0, help="to learn, racing over learning rates included")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page of what is kept")
    asked = parser.parse_args()
    _peers.need_data(_peers.DIALOGS)
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for name, (told, task, rows) in tasks(Path(place)).items():
            if asked.page or (asked.only and name not in asked.only.split(",")):
                continue
            given = {"model": _peers.MODEL, **task}
            sides = {
                side: _rung.measured(given, rung, seconds=asked.seconds, rows=rows)
                for side, rung in (("plain", "zero_shot"), ("tuned", asked.method))
            }
            one = {"data": told, "method": asked.method, **sides}
            (KEPT / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")
            print(line(name, one), file=sys.stderr, flush=True)
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(KEPT.glob("*.json"))}
    head = (
        "| task | data | measured by | asked plainly | tuned | learned in | memory | forgot (KL) |\n" + "|---" * 8 + "|"
    )
    table = "\n".join([head, *(line(name, one) for name, one in found.items())])
    _peers.write_page(PAGE, Path(__file__), table)
    shares = [one for one in found.values() if one["tuned"]["metric"] != "perplexity"]
    ours, plain = (sum(share(one[side]) for one in shares) / len(shares) for side in ("tuned", "plain"))
    return _peers.told(asked, ours, plain, ours / plain, "mean metric", table.splitlines(), tasks=found)


def share(side: dict[str, Any]) -> float:
    """The value of a metric as a share of one."""
    value: float = side["value"]
    return value / 100 if side["metric"] in ("bleu", "chrf") else value


def _without_limit(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "max_rows"}


if __name__ == "__main__":
    sys.exit(main())
