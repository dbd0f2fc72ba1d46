"""Rows of text cells: what csv and tsv share, from quotes to a header that is not there."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from tunesmith.core.errors import Mistake
from tunesmith.data._row import Row

_USUAL = frozenset(
    [
        "text",
        "sentence",
        "review",
        "content",
        "tweet",
        "comment",
        "message",
        "document",
        "article",
        "dialogue",
        "body",
        "title",
        "headline",
        "input",
        "output",
        "label",
        "labels",
        "class",
        "category",
        "sentiment",
        "intent",
        "topic",
        "summary",
        "question",
        "context",
        "answer",
        "prompt",
        "completion",
        "response",
        "instruction",
        "source",
        "target",
        "translation",
        "id",
        "index",
        "en",
        "de",
        "fr",
        "es",
        "it",
    ]
)

# The module's own bound (131,072 characters a cell) is less than a long document.
csv.field_size_limit(sys.maxsize)


class Line(NamedTuple):
    """The cells that begin on a line, or what is wrong there."""

    number: int
    cells: list[str]
    problem: str = ""


def quoted_lines(text: str, delimiter: str) -> Iterator[Line]:
    """Lines of cells by the rules of CSV (RFC 4180): quotes may hold delimiters and ends of lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(number, [], _explain(str(error)))
            continue
        if any(cells):
            yield Line(number, cells)


def plain_lines(text: str, delimiter: str) -> Iterator[Line]:
    """Lines of cells where a quote is only a character."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield Line(number, line.removesuffix("\r").split(delimiter))


def rows_of(name: str, lines: list[Line], header: bool | None) -> Iterator[Row]:
    """Rows named by the header, or by column_1, column_2 … when there is none; ragged lines are bad rows.

    `header` None means: look. Raises Mistake on a column named twice and on a header without rows.
    """
    good = [line.cells for line in lines if not line.problem]
    if not good:
        yield from (Row({}, f"{name}:{line.number}", line.problem) for line in lines)
        return
    has_header = looks_like_header(good) if header is None else header
    names = [cell.strip() for cell in good[0]] if has_header else [f"column_{n}" for n in range(1, len(good[0]) + 1)]
    _check_names(name, names)
    first = lines.index(next(line for line in lines if not line.problem))
    body = lines[:first] + lines[first + 1 :] if has_header else lines
    if not body:
        raise Mistake(f"{name}: a header ({', '.join(names)}) and no rows; expected rows of examples")
    note = _about_header(name, names, has_header)
    for line in body:
        source = f"{name}:{line.number}"
        if line.problem:
            yield Row({}, source, line.problem)
        elif len(line.cells) != len(names):
            yield Row({}, source, _ragged(len(line.cells), len(names), has_header))
        else:
            yield Row(dict(zip(names, line.cells, strict=True)), source, note=note)
            note = ""


def looks_like_header(lines: list[list[str]]) -> bool:
    """Whether the first line names the columns.

    It does not when one of its cells is a number or a value the column goes on repeating, when it is empty or
    repeated, or when it reads like a sentence. A file of one line is taken for a header without rows only if it has no
    such sign.
    """
    first, rest = lines[0], lines[1:1001]
    if len({cell.strip() for cell in first}) < len(first) or any(_is_number(cell) for cell in first):
        return False
    if any(len(cell) > 40 or len(cell.split()) > 4 or cell.rstrip().endswith((".", "!", "?", "…")) for cell in first):
        return False
    columns = zip(*(line for line in rest if len(line) == len(first)), strict=True)
    return not any(
        cell in column and len(set(column)) * 2 <= len(column) for cell, column in zip(first, columns, strict=False)
    )


def _about_header(name: str, names: list[str], has_header: bool) -> str:
    """What to tell about the header: that there is none, or that it was taken for one on slight evidence."""
    if not has_header:
        return f"{name} has no header: its columns are called {', '.join(names)}"
    if any(re.sub(r"[^a-z]+", "", column.lower()) in _USUAL for column in names):
        return ""
    return f"{name}: its first line ({', '.join(names)}) is taken for column names; write `header: false` if it is not"


def _check_names(name: str, names: list[str]) -> None:
    for column in names:
        if names.count(column) > 1:
            called = f"'{column}'" if column else "without a name"
            raise Mistake(f"{name}:1: two columns {called}; expected every column to have a name of its own")


def _ragged(got: int, expected: int, has_header: bool) -> str:
    than = "the header has" if has_header else "the first line has"
    advice = "put text that holds the delimiter in quotes" if got > expected else "add what is missing"
    return f"{got} cell{'s' * (got != 1)}; {than} {expected}; {advice}"


def _explain(error: str) -> str:
    if "unexpected end of data" in error:
        return "a quote opens here and never closes; close it, or double a quote that belongs to the text"
    if "expected after" in error:
        return "a quote closes in the middle of a cell; double a quote that belongs to the text"
    return error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
