"""Rows out of JSON values, with the line each begins on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tunesmith.core.errors import Mistake
from tunesmith.data._row import Row

_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def row_of(value: Any, source: str) -> Row:
    """A JSON value as a row: an object as it is, a string as the one field `text`."""
    if isinstance(value, dict):
        return Row(value, source)
    if isinstance(value, str):
        return Row({"text": value}, source)
    return Row({}, source, problem=f'got {_kind(value)}; expected an object such as {{"input": …, "output": …}}')


def elements(path: str, text: str, start: int) -> Iterator[tuple[Any, int]]:
    """The elements of the JSON array that opens at `start`, each with the position where it begins.

    Raises Mistake with the line where the JSON breaks.
    """
    position = _skip(text, start + 1)
    if text.startswith("]", position):
        return
    while True:
        value, end = decode(path, text, position)
        yield value, position
        position = _skip(text, end)
        if text.startswith("]", position):
            return
        if not text.startswith(",", position):
            raise Mistake(broken(path, text, position, "expected ',' or ']'"))
        position = _skip(text, position + 1)


def members(path: str, text: str, start: int) -> Iterator[tuple[str, Any, int]]:
    """The members of the JSON object that opens at `start`: key, value, position of the value."""
    position = _skip(text, start + 1)
    while not text.startswith("}", position):
        key, end = decode(path, text, position)
        colon = _skip(text, end)
        if not isinstance(key, str) or not text.startswith(":", colon):
            raise Mistake(broken(path, text, colon, "expected a key and ':'"))
        begin = _skip(text, colon + 1)
        value, end = decode(path, text, begin)
        yield key, value, begin
        position = _skip(text, end)
        if text.startswith(",", position):
            position = _skip(text, position + 1)
        elif not text.startswith("}", position):
            raise Mistake(broken(path, text, position, "expected ',' or '}'"))


def decode(path: str, text: str, position: int) -> tuple[Any, int]:
    """The JSON value at `position` and where it ends. Raises Mistake with the line where it breaks."""
    try:
        return _decode(text, position)
    except json.JSONDecodeError as error:
        raise Mistake(broken(path, text, error.pos, error.msg)) from None


def broken(path: str, text: str, position: int, reason: str) -> str:
    """The complaint about JSON that breaks at `position`."""
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return f"{path}:{line}: broken JSON at column {column}: {reason[0].lower()}{reason[1:]}"


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _kind(value: Any) -> str:
    names = {list: "a list", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
    return names.get(type(value), type(value).__name__)
