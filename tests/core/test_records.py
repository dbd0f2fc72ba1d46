from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.records import (
    Chat,
    Encoded,
    Labelled,
    Message,
    Preference,
    Score,
    Text,
    as_dict,
    fingerprint,
    read_jsonl,
    write_jsonl,
)

TURNS = (Message("user", "Hi"), Message("assistant", "Ho", trained=False))
RECORDS: list[Any] = [
    Text("running text", "a.txt:1"),
    Labelled("good film", "positive", source="a.csv:2"),
    Labelled("who?", "Anna", ("Anna", "Anna Lee"), "Anna Lee sang.", source="a.json:row 3"),
    Labelled("Anna sings", tokens=("Anna", "sings"), tags=("B-person", "O")),
    Chat(TURNS, "a.jsonl:4"),
    Preference(TURNS[:1], TURNS[1:], (Message("assistant", "Go"),)),
    Score(0.5, prediction="a", references=("a", "b")),
    Encoded((1, 2), (0.0, 1.0)),
]
each_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)


@each_record
def test_a_record_does_not_change(record: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, "other")


@each_record
def test_a_record_is_plain_json_without_its_empty_fields(record: Any, tmp_path: Path) -> None:
    plain = as_dict(record)
    assert all(value not in ("", (), [], {}, None) for value in plain.values())
    write_jsonl(tmp_path / "a.jsonl", [plain])
    (again,) = read_jsonl(tmp_path / "a.jsonl")
    assert again == json.loads(json.dumps(plain))


def test_zero_and_false_are_not_empty() -> None:
    assert as_dict(Score(0.0)) == {"value": 0.0, "weight": 1.0}
    assert as_dict(TURNS[1])["trained"] is False


def test_every_right_output_is_a_reference() -> None:
    assert Labelled("x", "a").references == ("a",)
    assert Labelled("x", "a", ("a", "b")).references == ("a", "b")
    assert Labelled("x").references == ("",)


def test_a_fingerprint_is_of_the_content_alone() -> None:
    row = Labelled("good film", "positive", source="a.csv:2")
    assert fingerprint(row) == fingerprint(dataclasses.replace(row, source="b.csv:9"))
    assert len(fingerprint(row)) == 64


def test_fingerprints_tell_contents_and_kinds_apart() -> None:
    rows: list[Any] = [
        *RECORDS,
        Labelled("good film", "negative"),
        Labelled("good film ", "positive"),
        Labelled("good", "film positive"),
        Labelled("good film", context="positive"),
        Labelled("running text"),
        Chat((TURNS[0], Message("assistant", "Ho"))),
        Chat(TURNS[::-1]),
    ]
    assert len({fingerprint(row) for row in rows}) == len(rows)


def test_a_fingerprint_stays_the_same_between_versions() -> None:
    """Data versions in people's stores are made of these: a change here makes every one of them new."""
    content = '["Labelled", {"input": "größe", "output": "1"}]'
    assert fingerprint(Labelled("größe", "1", source="x")) == hashlib.sha256(content.encode()).hexdigest()


def test_lines_are_utf8_one_object_each_whatever_the_text_holds(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "größe\nzweite Zeile"}, {"text": "a\u2028b"}, {}]
    write_jsonl(path, rows)
    raw = path.read_bytes()
    assert raw.count(b"\n") == 3
    assert raw.endswith(b"{}\n")
    assert "größe".encode() in raw
    assert list(read_jsonl(path)) == rows
    path.write_text('{"a": 1}\n\n  \n{"a": 2}', encoding="utf-8")
    assert list(read_jsonl(path)) == [{"a": 1}, {"a": 2}]
