from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.records import Text
from tunesmith.data import txt
from tunesmith.data._read import read

FIELDS = {"text": "a document"}


def records(path: Path) -> list[tuple[str, str]]:
    found = read(str(path), record=Text, fields=FIELDS).records
    return [(record.text, record.source.rpartition(":")[2]) for record in found]


def test_a_file_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\nOne day,\n\n  it rained.\n\n")
    assert records(tmp_path / "a.txt") == [("One day,\n\n  it rained.", "1")]


def test_marks_end_documents(tmp_path: Path) -> None:
    long = "word " * 4000
    (tmp_path / "a.txt").write_text(f"One.\n\n{long}\n<|endoftext|>\n<|endoftext|>\nTwo.\n<|endoftext|>\nThree.")
    assert records(tmp_path / "a.txt") == [(f"One.\n\n{long}".strip(), "1"), ("Two.", "6"), ("Three.", "8")]


def test_a_long_text_is_cut_at_blank_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txt, "PART", 10)
    (tmp_path / "a.txt").write_text("four\n\nletters\n\nmany more letters\nand a line\n\nend\n")
    assert records(tmp_path / "a.txt") == [
        ("four\n\nletters", "1"),
        ("many more letters\nand a line", "5"),
        ("end", "8"),
    ]
