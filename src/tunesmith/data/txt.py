"""Plain text: documents to go on learning a language from, without columns.

A line ``<|endoftext|>`` ends a document where a file has such lines. Any other file is one document; a long one is cut
at blank lines into parts of some 8,000 characters, so that a share of it can be held out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.data._open import read_text
from tunesmith.data._row import Options, Row

SUFFIXES = (".txt", ".text")
END = "<|endoftext|>"
PART = 8000
"""Characters of a part: 2,000 tokens of English, more than most rows hold."""


def sniff(name: str, head: str) -> float:
    """By suffix alone: every other format is text too, and knows itself better."""
    return 0.85 if name.endswith(SUFFIXES) else 0.0


def rows(name: str, options: Options) -> Iterator[Row]:
    """Every document, or part of one, as `text`, named by the line behind the end of the one before."""
    lines = read_text(Path(name), options.encoding).split("\n")
    marked = any(line.strip() == END for line in lines)
    part: list[str] = []
    begun = 1
    for number, line in enumerate([*lines, END], start=1):
        ends = line.strip() == END
        if not ends:
            part.append(line)
            ends = not marked and not line.strip() and sum(map(len, part)) >= PART
        if ends:
            if text := "\n".join(part).strip():
                yield Row({"text": text}, f"{name}:{begun}")
            part, begun = [], number + 1
