"""Parallel text: two files of which line 1 belongs to line 1, written `train.{en,de}.gz`, input first."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import Mistake
from tunesmith.data._open import read_text
from tunesmith.data._row import Options, Row

SUFFIXES = ()
_BRACES = re.compile(r"(.*)\{([^{},]+),([^{},]+)\}(.*)")


def sniff(name: str, head: str) -> float:
    """Sure when the name holds a pair of braces."""
    return 1.0 if _BRACES.fullmatch(name) else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every pair of lines as `input` and `output`, named by the first file's line.

    Raises Mistake when the files have not the same number of lines.
    """
    first, second = expand(name)
    left, right = _lines(first, options), _lines(second, options)
    if len(left) != len(right):
        got = f"{first} has {len(left):,} lines, {second} {len(right):,}"
        raise Mistake(f"{got}; expected line by line the same text in both; the first {_drift(left, right)}")
    for number, (one, other) in enumerate(zip(left, right, strict=True), start=1):
        note = f"{name}: the input is {first}, the output {second}" if number == 1 else ""
        yield Row({"input": one, "output": other}, f"{first}:{number}", note=note)


def expand(name: str) -> tuple[str, str]:
    """Both paths of a pattern such as ``train.{en,de}.gz``. Raises Mistake when it is none."""
    found = _BRACES.fullmatch(name)
    if not found:
        raise Mistake(f"{name}: got one name; expected two files; write train.{{en,de}}.gz or {{input: A, output: B}}")
    before, one, other, after = found.groups()
    return before + one + after, before + other + after


def _lines(path: str, options: Options) -> list[str]:
    lines = read_text(Path(path), options.encoding).split("\n")
    return [line.strip() for line in (lines[:-1] if not lines[-1] else lines)]


def _drift(left: list[str], right: list[str]) -> str:
    """Where the files may part: an empty line in one of them, or else the shorter one's end."""
    pairs = itertools.zip_longest(left, right)
    alone = next((number for number, (one, other) in enumerate(pairs, 1) if bool(one) != bool(other)), 0)
    return f"line that only one of them fills is {alone}" if alone else f"{min(len(left), len(right)):,} go together"
