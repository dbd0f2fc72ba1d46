"""What a format gives: a row with the place it came from; and how a file is to be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake

PROMPTS = ("prompt", "question", "query", "instruction", "input", "user")
COMPLETIONS = ("completion", "response", "answer", "output", "assistant", "target")
"""Usual names of a column that holds what is asked, and of one that holds what is answered."""

Kind = Literal["malformed", "empty", "label"]


class Row(NamedTuple):
    """One row as its file has it.

    `source` is "file.csv:12". `problem` says what keeps the row from being read, and `fields` is then empty. `note` is
    something to tell about it; the same note on many rows is told once with their number. A row without fields and
    without a problem is left out on purpose, and its note says why.
    """

    fields: Mapping[str, Any]
    source: str
    problem: str = ""
    note: str = ""


class Problem(NamedTuple):
    """A bad row: where, in which field ("" for the row as a whole), what is wrong, and of which kind it is."""

    source: str
    field: str
    message: str
    kind: Kind = "malformed"

    def __str__(self) -> str:
        return f"{self.source}: {self.field}: {self.message}" if self.field else f"{self.source}: {self.message}"


class BadField(Mistake):
    """A value that cannot become part of a record; `_read` turns it into a Problem with the row's place."""

    def __init__(self, field: str, message: str, kind: Kind = "malformed") -> None:
        super().__init__(message)
        self.field, self.kind = field, kind


class Options(Section):
    """How a file or source is to be read; each format takes what concerns it."""

    encoding: str = Field("utf-8", description="the encoding of text files")
    header: bool | None = Field(None, description="whether a csv or tsv begins with column names; default: looked at")
    split: str = Field("train", description="which split of a hub dataset")
    subset: str | None = Field(None, description="which subset (configuration) of a hub dataset")
    revision: str | None = Field(None, description="which revision of a hub dataset")
    offline: bool | None = Field(None, description="stay off the network; default: as TUNESMITH_OFFLINE says")
