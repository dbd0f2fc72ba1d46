"""What every file of the data room keeps, whichever format or source it is."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice, names, summary
from tunesmith.data._row import BadField, Options, Row
from tunesmith.data._spec import format_of, is_shape

CARRIERS = [name for name in names("data") if not is_shape(name)]
SHAPES = [name for name in names("data") if is_shape(name)]
# A small file of each format that has a suffix or a content of its own. A format made later is tested by its own file.
SAMPLES = {
    "jsonl": ("rows.jsonl", '{"text": "good", "label": "a"}\n{"text": "bad", "label": "b"}\n'),
    "json": ("rows.json", '[\n {"text": "good", "label": "a"},\n {"text": "bad", "label": "b"}\n]\n'),
    "csv": ("rows.csv", "text,label\ngood,a\nbad,b\n"),
    "tsv": ("rows.tsv", "text\tlabel\ngood\ta\nbad\tb\n"),
    "conll": ("rows.conll", "Anna\tB-person\nsings\tO\n\nBerlin\tB-place\n"),
    "squad": (
        "rows.json",
        '{"data": [{"paragraphs": [{"context": "Two facts.", "qas": ['
        '{"question": "How many?", "answers": [{"text": "Two"}]}, {"question": "What?", "answers": [{"text": "facts"}]}'
        "]}]}]}",
    ),
}


def module(name: str) -> ModuleType:
    return choice("data", name)


def sample(name: str, folder: Path, compressed: bool) -> str:
    file, text = SAMPLES[name]
    path = folder / (file + ".gz" * compressed)
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    return str(path)


@pytest.mark.parametrize("name", CARRIERS)
def test_a_carrier_declares_its_contract(name: str) -> None:
    carrier = module(name)
    assert isinstance(carrier.SUFFIXES, tuple)
    assert all(suffix.startswith(".") for suffix in carrier.SUFFIXES)
    assert callable(carrier.rows)
    assert summary("data", name)


@pytest.mark.parametrize("name", CARRIERS)
@pytest.mark.parametrize("head", ["", "{", "[", "\0\x01", "text,label\n", "a\tO\n", "{}\n{}", "[1, 2", "﻿text"])
def test_sniffing_never_fails_and_stays_between_0_and_1(name: str, head: str) -> None:
    for path in ("x", "x.json", "owner/name", "package:x", "a.{b,c}", f"x{(*module(name).SUFFIXES, '')[0]}"):
        assert 0 <= module(name).sniff(path, head) <= 1


@pytest.mark.parametrize("name", [name for name in CARRIERS if module(name).SUFFIXES])
def test_a_suffix_speaks_for_its_format_when_nothing_else_does(name: str) -> None:
    for suffix in module(name).SUFFIXES:
        assert module(name).sniff(f"rows{suffix}", "") >= 0.8


@pytest.mark.parametrize("name", [name for name in CARRIERS if module(name).SUFFIXES])
@pytest.mark.parametrize("content", [None, b"", b"\n \n"], ids=["missing", "empty", "blank"])
def test_a_file_that_is_not_there_or_empty_is_a_mistake_in_one_line(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / f"rows{module(name).SUFFIXES[0]}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Mistake, match=r"no such file|empty|not readable") as caught:
        list(module(name).rows(str(path), Options()))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", [name for name in SAMPLES if name in CARRIERS])
def test_a_format_knows_its_own_and_reads_every_row_with_its_place(name: str, compressed: bool, tmp_path: Path) -> None:
    path = sample(name, tmp_path, compressed)
    assert format_of(path) == name
    rows = list(module(name).rows(path, Options()))
    assert len(rows) == 2
    for row in rows:
        assert isinstance(row, Row)
        assert row.fields
        assert not row.problem
        assert row.source.startswith(f"{path}:")
    assert rows[0].source != rows[1].source
    assert list(module(name).rows(path, Options())) == rows


@pytest.mark.parametrize("name", [name for name in SAMPLES if name in CARRIERS])
def test_a_text_in_another_encoding_is_named_by_its_byte_and_read_when_told(name: str, tmp_path: Path) -> None:
    file, text = SAMPLES[name]
    path = tmp_path / file
    path.write_bytes(text.replace("good", "größer").replace("Anna", "Käte").replace("facts", "Sätze").encode("cp1252"))
    with pytest.raises(Mistake, match=r":\d+: byte 0x[ef][46] \(number \d+\) is not utf-8; try `encoding: cp1252`"):
        list(module(name).rows(str(path), Options()))
    rows = list(module(name).rows(str(path), Options(encoding="cp1252")))
    assert any(letter in str(rows[0].fields) for letter in "öä")


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_does_not_fit_a_row_that_is_not_its_own(name: str) -> None:
    assert module(name).fits({}) == 0
    assert module(name).fits({"foo": "a", "bar": "b"}) == 0
    assert summary("data", name)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("alpaca", {"instruction": "Add.", "input": "1 and 2", "output": "3"}),
        ("alpaca", {"instruction": "Add.", "system": "Be brief.", "output": "3"}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}),
        ("prompt_completion", {"prompt": "Hi", "completion": "Ho"}),
    ],
)
def test_a_shape_gives_our_own_fields(name: str, fields: dict[str, Any]) -> None:
    assert module(name).fits(fields) > 0.9
    assert set(module(name).reshape(fields)) in ({"input", "output"}, {"messages"})


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_of_the_wrong_kind_is_a_bad_field_and_no_crash(name: str) -> None:
    broken: dict[str, Any] = {"instruction": 3, "output": 3, "messages": 3, "prompt": [3], "completion": 3}
    with pytest.raises(BadField, match=r"got .*; expected"):
        module(name).reshape(broken)
