"""CSV: cells between commas, or the semicolons or bars that some programs write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.data._open import read_text
from tunesmith.data._row import Options, Row
from tunesmith.data._table import quoted_lines, rows_of

SUFFIXES = (".csv",)
_DELIMITERS = ",;\t|"


def sniff(name: str, head: str) -> float:
    """By suffix: any text might be a csv."""
    return 0.9 if name.endswith(SUFFIXES) else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every line of cells under the header (or column_1 … without one), named by the line it begins on."""
    text = read_text(Path(name), options.encoding)
    yield from rows_of(name, list(quoted_lines(text, delimiter_of(text))), options.header)


def delimiter_of(text: str) -> str:
    """The delimiter that occurs most often in the first line, outside quotes; a comma when there is none."""
    outside = "".join(text.lstrip().split("\n", 1)[0].split('"')[::2])
    return max(_DELIMITERS, key=outside.count)
