"""JSON: an array of objects, or one object that holds such an array."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import Mistake
from tunesmith.data._objects import broken, decode, elements, members, row_of
from tunesmith.data._open import read_text
from tunesmith.data._row import Options, Row

SUFFIXES = (".json",)


def sniff(name: str, head: str) -> float:
    """By the first character, more surely with the suffix."""
    by_name = 0.8 if name.endswith(SUFFIXES) else 0.0
    return {"[": 0.93, "{": max(0.4, by_name)}.get(head.lstrip()[:1], by_name)


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every element of the array, named by the line it begins on, or by its number where all is on one line.

    Raises Mistake where the JSON breaks (a row cannot be told from the next after that) and when there is no one list.
    """
    text = read_text(Path(name), options.encoding)
    by_line = text.count("\n") > 1
    line, seen = 1, 0
    for number, (value, position) in enumerate(elements(name, text, _start_of_rows(name, text)), start=1):
        line, seen = line + text.count("\n", seen, position), position
        yield row_of(value, f"{name}:{line}" if by_line else f"{name}:row {number}")


def _start_of_rows(name: str, text: str) -> int:
    """Where the array of rows opens, once the whole text is known to be one JSON value."""
    start = len(text) - len(text.lstrip())
    value, end = decode(name, text, start)
    if text[end:].strip():
        raise Mistake(f"{broken(name, text, end, 'a second value begins')}; expected one array, or JSON Lines (.jsonl)")
    if isinstance(value, list):
        return start
    if not isinstance(value, dict):
        raise Mistake(f"{name}: got {value!r:.40}; expected an array of objects")
    lists = {key: begin for key, part, begin in members(name, text, start) if isinstance(part, list)}
    if len(lists) == 1 or "data" in lists:
        return lists.get("data", next(iter(lists.values())))
    got = f"an object with {len(lists)} lists ({', '.join(lists)})" if lists else "one object without a list"
    raise Mistake(f"{name}: got {got}; expected an array of rows, or an object with one list of them")
