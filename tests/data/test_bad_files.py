"""Files that are missing, empty, in another encoding, broken or not files: one clear line each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake

Write = Callable[..., str]


def complaint(read_as: Any, spec: Any, **more: Any) -> str:
    with pytest.raises(Mistake) as caught:
        read_as("labels", spec, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_names_those_like_it(write: Write, read_as: Any, tmp_path: Path) -> None:
    near, _ = write("reviews.csv", "text,label\n"), write("other.json", "[]")
    said = complaint(read_as, str(tmp_path / "revews.csv"))
    assert said == f"{tmp_path}/revews.csv: no such file; did you mean {near}?"


def test_a_missing_file_with_nothing_like_it_says_what_is_there(write: Write, read_as: Any, tmp_path: Path) -> None:
    write("other.json", "[]")
    assert f"no such file; {tmp_path} holds other.json" in complaint(read_as, str(tmp_path / "zzz.csv"))


def test_a_missing_folder_is_said_to_be_missing(read_as: Any, tmp_path: Path) -> None:
    assert f"and no folder {tmp_path}/data either" in complaint(read_as, str(tmp_path / "data" / "a.csv"))


def test_a_missing_name_without_suffix_hints_at_the_hub(read_as: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert "a dataset of the hub is written owner/name or hub:name" in complaint(read_as, "imdb")


def test_a_glob_that_matches_nothing_is_a_missing_file(write: Write, read_as: Any, tmp_path: Path) -> None:
    write("a.csv", "text,label\n")
    assert "no file is called so" in complaint(read_as, str(tmp_path / "*.jsonl"))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.conll", "a.tsv", "a.csv.gz", "a.unknown"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_called_empty(write: Write, read_as: Any, name: str, content: str) -> None:
    assert "the file is empty; expected rows of examples" in complaint(read_as, write(name, content))


def test_another_encoding_is_named_with_byte_and_line_and_read_when_told(write: Write, read_as: Any) -> None:
    path = write("a.csv", "text,label\ngood,positive\ncafé,negative\n".encode("cp1252"))
    said = complaint(read_as, path)
    assert said == (
        f"{path}:3: byte 0xe9 (number 29) is not utf-8; try `encoding: cp1252` (usual on Windows), "
        "or save the file as UTF-8"
    )
    assert read_as("labels", path, encoding="cp1252").records[1].input == "café"
    own = {"path": path, "encoding": "cp1252"}
    assert read_as("labels", own, encoding="utf-8").records[1].input == "café"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_marks(write: Write, read_as: Any, encoding: str) -> None:
    path = write("a.csv", "text,label\ngood,positive\n".encode(encoding))
    if encoding == "utf-16":
        assert "it looks like UTF-16: write `encoding: utf-16`" in complaint(read_as, path)
    else:
        encoding = "utf-8"
    reading = read_as("labels", path, encoding=encoding)
    assert reading.columns == {"input": ("text",), "output": ("label",)}


def test_an_unknown_encoding_has_its_nearest_name(write: Write, read_as: Any) -> None:
    path = write("a.csv", "text,label\ngood,positive\n")
    assert complaint(read_as, path, encoding="utf8x") == "encoding: there is no 'utf8x'; did you mean 'utf-8'?"


@pytest.mark.parametrize("name", ["a.csv", "a.unknown"])
def test_bytes_that_are_no_text_are_said_to_be_none(write: Write, read_as: Any, name: str) -> None:
    said = complaint(read_as, write(name, b"PK\x03\x04\x00\x00\x08\x00 and so on"))
    assert "not text" in said or "neither name nor content tells its format" in said


def test_a_format_nobody_can_tell_lists_those_there_are(write: Write, read_as: Any) -> None:
    said = complaint(read_as, write("a.log", "Some running text.\nAnd more."))
    assert "neither name nor content tells its format; write `format:` with one of conll, csv, hub" in said


def test_a_misspelt_format_has_its_nearest_name(write: Write, read_as: Any) -> None:
    path = write("a.txt", "text,label\ngood,positive\n")
    assert complaint(read_as, path, format="cvs") == "data: there is no 'cvs'; did you mean 'csv'?"
    assert len(read_as("labels", path, format="csv").records) == 1


def test_gzip_cut_short_is_broken_gzip(write: Write, read_as: Any, tmp_path: Path) -> None:
    whole = Path(write("a.csv.gz", "text,label\n" + "".join(f"good {n},positive\n" for n in range(999)))).read_bytes()
    assert "broken gzip" in complaint(read_as, write("b.csv", whole[: len(whole) // 2]))


def test_a_gzip_without_its_suffix_and_a_suffix_without_gzip_are_both_read(write: Write, read_as: Any) -> None:
    text = "text,label\ngood,positive\n"
    zipped = Path(write("a.csv.gz", text)).read_bytes()
    assert len(read_as("labels", write("b.csv", zipped)).records) == 1
    plain = Path(write("c.csv", text))
    assert len(read_as("labels", str(plain.rename(plain.with_suffix(".csv.gz")))).records) == 1


def test_a_folder_is_not_a_file(write: Write, read_as: Any, tmp_path: Path) -> None:
    write("a.csv", "text,label\n")
    said = complaint(read_as, str(tmp_path))
    assert f"a folder; expected a file; type {tmp_path}/a.csv, or {tmp_path}/*.csv for several" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(write: Write, read_as: Any) -> None:
    path = Path(write("a.csv", "text,label\n"))
    path.chmod(0)
    assert "not readable; check its permissions" in complaint(read_as, str(path))


def test_an_emoji_cut_in_two_is_a_bad_row(write: Write, read_as: Any) -> None:
    said = complaint(read_as, write("a.jsonl", '{"text": "so \\ud83d", "label": "positive"}'))
    assert "a.jsonl:1: text: half a character (\\ud83d); expected whole ones" in said
