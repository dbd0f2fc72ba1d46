"""TSV: cells between tabs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.data._open import read_text
from tunesmith.data._row import Options, Row
from tunesmith.data._table import Line, plain_lines, quoted_lines, rows_of

SUFFIXES = (".tsv", ".tab")


def sniff(name: str, head: str) -> float:
    """By suffix."""
    return 0.9 if name.endswith(SUFFIXES) else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every line of cells under the header (or column_1 … without one)."""
    yield from rows_of(name, _lines(read_text(Path(name), options.encoding)), options.header)


def _lines(text: str) -> list[Line]:
    """Most TSV files have no quoting, and a text may begin with a quote; some are written as CSV with tabs.

    The quotes are CSV's when reading them so makes a ragged file even, or when a quoted cell holds doubled quotes, or
    when every cell is quoted. Otherwise they belong to the text.
    """
    plain = list(plain_lines(text, "\t"))
    cells = [cell for line in plain for cell in line.cells]
    wrapped = [cell for cell in cells if len(cell) > 1 and cell.startswith('"') and cell.endswith('"')]
    opened = any(cell.startswith('"') for cell in cells)
    doubled = any('""' in cell[1:-1] and '"' not in cell[1:-1].replace('""', "") for cell in wrapped)
    if opened and (doubled or len(wrapped) == len(cells) or not _is_even(plain)):
        quoted = list(quoted_lines(text, "\t"))
        if _is_even(quoted):
            return quoted
    return plain


def _is_even(lines: list[Line]) -> bool:
    return len({len(line.cells) for line in lines}) == 1 and not any(line.problem for line in lines)
