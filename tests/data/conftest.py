"""Files made on the spot, and what three tasks need of a row (the tasks' own words are tested with the tasks)."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.records import Chat, Labelled
from tunesmith.data._read import Reading, read

Write = Callable[..., str]
Read = Callable[..., Reading[Any]]

FIELDS: dict[str, Any] = {
    "labels": {
        "record": Labelled,
        "fields": {"input": "the text to label", "output": "its label"},
        "aliases": {"input": ("text", "sentence", "review"), "output": ("label", "sentiment", "class")},
        "labels": ("negative", "positive"),
    },
    "texts": {
        "record": Labelled,
        "fields": {"input": "the text", "output": "what is to be written", "context": "what it is about"},
        "optional": ("context",),
        "aliases": {"input": ("dialogue", "question"), "output": ("summary", "answers"), "context": ("passage",)},
    },
    "tags": {
        "record": Labelled,
        "fields": {"tokens": "the words", "tags": "their tags"},
        "aliases": {"tokens": ("words",), "tags": ("ner_tags",)},
    },
    "chat": {
        "record": Chat,
        "fields": {"messages": "a list of turns", "system": "what the model is told before"},
        "optional": ("system",),
        "aliases": {"system": ("system_prompt",)},
    },
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write("reviews.csv", "text,label\\n…")`` gives the path; bytes are written as they are, .gz is compressed."""

    def make(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return make


@pytest.fixture
def read_as() -> Read:
    """``read_as("labels", path, columns=…)``: read for one of the kinds of task above."""

    def call(kind: str, spec: Any, **more: Any) -> Reading[Any]:
        return read(spec, **{**FIELDS[kind], **more})

    return call
