"""CoNLL: a token a line with its tag in the last column, an empty line after each sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.data._open import read_text
from tunesmith.data._row import Options, Row

SUFFIXES = (".conll", ".conll2003", ".bio", ".iob", ".iob2", ".bioes")
_TAG = re.compile(r"(O|[BIESLU]-\S+)$")


def sniff(name: str, head: str) -> float:
    """By suffix, or when nearly every line ends in a tag such as O or B-person."""
    lines = [line.split() for line in head.split("\n")[:-1] if line.strip()][:500]
    tagged = sum(1 for cells in lines if len(cells) > 1 and _TAG.match(cells[-1]))
    if len(lines) > 1 and tagged >= 0.8 * len(lines):
        return 0.97
    return 0.9 if name.endswith(SUFFIXES) else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every sentence, named by the line of its first token, as `tokens` and `tags`.

    The columns between are there as column_2, column_3 …, for `columns: {tags: column_2}`. Comments (`# …`) and
    -DOCSTART- lines are no tokens. A file of bare tokens gives `tokens` alone. A sentence with a line of too few cells
    is a bad row.
    """
    text = read_text(Path(name), options.encoding)
    separator = "\t" if "\t" in text else None
    sentences = list(_sentences(text, separator))
    widths = Counter(len(cells) for sentence in sentences for _, cells in sentence)
    width = max(widths, key=widths.__getitem__)
    for sentence in sentences:
        ragged = next(((line, cells) for line, cells in sentence if len(cells) != width), None)
        if ragged:
            line, cells = ragged
            yield Row({}, f"{name}:{line}", f"token {cells[0]!r} stands in {len(cells)} columns; expected {width}")
        else:
            yield Row(_fields([cells for _, cells in sentence]), f"{name}:{sentence[0][0]}")


def _sentences(text: str, separator: str | None) -> Iterator[list[tuple[int, list[str]]]]:
    """Runs of lines that hold something, each line as its number and cells."""
    sentence: list[tuple[int, list[str]]] = []
    for number, line in enumerate((*text.split("\n"), ""), start=1):
        if line.startswith("-DOCSTART-"):
            continue
        if not line.strip():
            if sentence:
                yield sentence
            sentence = []
            continue
        cells = [cell.strip() for cell in line.rstrip().split(separator)]
        if not _is_comment(line, cells):
            sentence.append((number, cells))


def _is_comment(line: str, cells: list[str]) -> bool:
    """A "#" may be a token like any other: a comment has a blank after it and no tag at its end."""
    return line.startswith(("# ", "#\t")) and not (len(cells) > 1 and _TAG.match(cells[-1]))


def _fields(sentence: list[list[str]]) -> dict[str, Any]:
    columns = list(zip(*sentence, strict=True))
    fields: dict[str, Any] = {"tokens": list(columns[0])}
    fields |= {f"column_{number}": list(column) for number, column in enumerate(columns[1:-1], start=2)}
    return fields | {"tags": list(columns[-1])} if len(columns) > 1 else fields
