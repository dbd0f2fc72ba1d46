"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tunesmith.data._objects import row_of
from tunesmith.data._open import HEAD_CHARACTERS, read_text
from tunesmith.data._row import Options, Row

SUFFIXES = (".jsonl", ".ndjson", ".jsonlines")


def sniff(name: str, head: str) -> float:
    """Sure when the first line is a whole JSON object that is not itself a list of rows; else by suffix."""
    first, _, rest = head.lstrip().partition("\n")
    by_name = 0.9 if name.endswith(SUFFIXES) else 0.0
    if not first.startswith("{") or (not rest and len(head) >= HEAD_CHARACTERS):
        return by_name
    try:
        value = json.loads(first)
    except json.JSONDecodeError:
        return by_name
    holds_rows = any(isinstance(part, list) and part and isinstance(part[0], dict) for part in value.values())
    return 0.95 if rest.strip() or by_name or not holds_rows else 0.3


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every line that is not blank; a line that is not JSON is a bad row and the reading goes on."""
    # Not `splitlines`: JSON strings may hold U+2028 and its like, which it takes for ends of lines.
    for number, line in enumerate(read_text(Path(name), options.encoding).split("\n"), start=1):
        if not line or line.isspace():
            continue
        source = f"{name}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            reason = error.msg[0].lower() + error.msg[1:]
            yield Row({}, source, problem=f"broken JSON at column {error.colno}: {reason}")
            continue
        yield row_of(value, source)
