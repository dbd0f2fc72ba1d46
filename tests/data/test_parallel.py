"""parallel: two files line by line, in every way a pair can be given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake, Mistakes

Write = Callable[..., str]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("way", ["braces", "mapping", "list"])
def test_a_pair_is_read_however_it_is_given(write: Write, read_as: Any, tmp_path: Path, suffix: str, way: str) -> None:
    english, german = write(f"t.en{suffix}", "A dog.\nA cat.\n"), write(f"t.de{suffix}", "Ein Hund.\nEine Katze.\n")
    spec = {
        "braces": str(tmp_path / f"t.{{en,de}}{suffix}"),
        "mapping": {"input": english, "output": german},
        "list": [english, german],
    }[way]
    reading = read_as("texts", spec)
    assert [(row.input, row.output) for row in reading.records] == [("A dog.", "Ein Hund."), ("A cat.", "Eine Katze.")]
    assert reading.records[1].source == f"{english}:2"
    assert reading.formats == ("parallel",)
    assert any(f"the input is {english}, the output {german}" in note for note in reading.notes)


def test_the_order_of_the_mapping_says_which_is_the_input(write: Write, read_as: Any) -> None:
    english, german = write("t.en", "A dog.\n"), write("t.de", "Ein Hund.\n")
    (record,) = read_as("texts", {"output": english, "input": german}).records
    assert (record.input, record.output) == ("Ein Hund.", "A dog.")
    (record,) = read_as("texts", {"de": german, "en": english}).records
    assert record.input == "Ein Hund."


def test_files_of_different_length_are_a_mistake_that_says_where_they_part(write: Write, read_as: Any) -> None:
    left, right = write("t.en", "a\nb\n\nd\n"), write("t.de", "A\nB\nC\n")
    with pytest.raises(Mistake, match=r"t\.en has 4 lines, .*t\.de 3; .*line that only one of them fills is 3"):
        read_as("texts", [left, right])


def test_a_line_empty_on_one_side_is_a_bad_row(write: Write, read_as: Any) -> None:
    left, right = write("t.en", "a\nb\n"), write("t.de", "A\n\n")
    with pytest.raises(Mistakes, match=r"t\.en:2: output: empty or missing"):
        read_as("texts", [left, right])


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"path": "x", "frmat": "csv"}, "there is no key 'frmat'; did you mean 'format'"),
        ({"columns": {}}, "got the keys columns; expected `path:`, or two line-aligned files"),
        ({"input": "a", "output": "b", "context": "c"}, "got the keys input, output, context"),
        ({"input": "a,b", "output": "c"}, "expected names without comma or brace"),
        ({"path": 3}, "path: got 3; expected"),
        ({"path": "x", "bad_rows": "drop"}, "bad_rows: got 'drop'; expected 'error' or 'skip'"),
        ([], "no data files given"),
    ],
)
def test_a_source_that_says_nothing_sensible_is_a_mistake(read_as: Any, spec: Any, complaint: str) -> None:
    with pytest.raises(Mistake, match=complaint):
        read_as("texts", spec)
