"""The door of the data room: records, what is told about them, and every bad row at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake, Mistakes
from tunesmith.core.records import Labelled, Text
from tunesmith.data._read import read

Write = Callable[..., str]


def test_a_record_knows_its_line(write: Write, read_as: Any) -> None:
    path = write("a.csv", "id,text,label\n1,good,positive\n2,bad,negative\n")
    reading = read_as("labels", path)
    assert reading.records == (
        Labelled("good", "positive", source=f"{path}:2"),
        Labelled("bad", "negative", source=f"{path}:3"),
    )
    assert reading.notes == (f"{path}: read as csv, input from text, output from label (by name); not used: id",)
    assert reading.columns == {"input": ("text",), "output": ("label",)}
    assert (reading.labels, reading.formats) == (("negative", "positive"), ("csv",))


def test_every_bad_row_is_told_at_once_by_line_and_field(write: Write, read_as: Any) -> None:
    lines = ["text,label", "good,positive", "bad,negatve", ",positive", "a,b,c", "fine,positive", "so so,"]
    path = write("a.csv", "\n".join(lines))
    with pytest.raises(Mistakes) as caught:
        read_as("labels", path)
    assert caught.value.lines == (
        f"{path}:3: label: label 'negatve' is not in the list (negative, positive); did you mean 'negative'?",
        f"{path}:4: text: empty or missing; expected text",
        f"{path}:5: 3 cells; the header has 2; put text that holds the delimiter in quotes",
        f"{path}:7: label: no label; expected one",
    )


def test_rows_wrong_in_the_same_way_share_a_line_and_twenty_lines_are_enough(write: Write, read_as: Any) -> None:
    same = "".join("fine,neutral\n" for _ in range(40))
    path = write("a.csv", "text,label\n" + same)
    with pytest.raises(Mistakes) as caught:
        read_as("labels", path)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}:2: label: label 'neutral' is not in the list (negative, positive)")
    assert line.endswith("(and 39 more: 3, 4, 5, 6, 7 …)")
    path = write("b.csv", "text,label\n" + "".join(f"fine,neutral{n}\n" for n in range(40)))
    with pytest.raises(Mistakes) as caught:
        read_as("labels", path)
    assert len(caught.value.lines) == 21
    assert caught.value.lines[-1].startswith("… and 20 more bad rows")


def test_bad_rows_are_skipped_when_asked_and_still_told(write: Write, read_as: Any) -> None:
    path = write("a.jsonl", '{"text": "good", "label": "positive"}\n{"broken\n{"text": "", "label": "positive"}\n')
    reading = read_as("labels", {"path": path, "bad_rows": "skip"})
    assert len(reading.records) == 1
    assert [(problem.source, problem.kind) for problem in reading.problems] == [
        (f"{path}:2", "malformed"),
        (f"{path}:3", "empty"),
    ]
    assert "2 bad rows are left out" in reading.notes
    with pytest.raises(Mistakes, match="no row can be read"):
        read_as("labels", write("b.csv", "text,label\n,positive\n"), bad_rows="skip")


def test_files_lists_and_globs_are_read_in_order(write: Write, read_as: Any, tmp_path: Path) -> None:
    one = write("a1.csv", "text,label\ngood,positive\n")
    two = write("a2.jsonl", '{"sentence": "bad", "sentiment": "negative"}')
    for spec in ([one, two], str(tmp_path / "a*"), Path(tmp_path) / "a[12].*", {"path": [one, two]}):
        reading = read_as("labels", spec)
        assert [record.input for record in reading.records] == ["good", "bad"]
        assert reading.formats == ("csv", "jsonl")


def test_a_relative_path_is_looked_for_beside_the_folder_first(
    write: Write, read_as: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.csv", "text,label\ngood,positive\n")
    write("t.en", "a\n")
    write("t.de", "b\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for spec, kind in (("a.csv", "labels"), ("*.csv", "labels"), ("t.{en,de}", "texts")):
        assert len(read_as(kind, spec, folder=tmp_path).records) == 1
    with pytest.raises(Mistake, match="no such file"):
        read_as("labels", "a.csv")
    monkeypatch.chdir(tmp_path)
    assert len(read_as("labels", "a.csv", folder=tmp_path / "elsewhere").records) == 1


def test_rows_without_an_answer_are_read_when_only_inputs_are_wanted(write: Write, read_as: Any) -> None:
    for name, text in (("a.csv", "text\ngood\nbad\n"), ("b.csv", "text,label\ngood,positive\nbad,\n")):
        path = write(name, text)
        with pytest.raises(Mistake):
            read_as("labels", path)
        reading = read_as("labels", path, inputs_only=True)
        assert [record.input for record in reading.records] == ["good", "bad"]
        assert reading.records[1].output == ""
    chat = read_as("chat", write("c.jsonl", '{"prompt": "Hi"}'), inputs_only=True)
    assert chat.records[0].messages[0].content == "Hi"


@pytest.mark.parametrize("answers", [[], {"text": [], "answer_start": []}])
def test_a_question_its_passage_does_not_answer_has_an_empty_output(write: Write, read_as: Any, answers: Any) -> None:
    row = {"question": "Who?", "passage": "It rained.", "answers": answers}
    reading = read_as("texts", write("a.jsonl", json.dumps(row)))
    assert (reading.records[0].output, reading.records[0].context) == ("", "It rained.")
    assert any("the passage has no answer" in note and "(1 row)" in note for note in reading.notes)
    with pytest.raises(Mistakes, match=r"answers: empty or missing"):
        read_as("texts", write("b.jsonl", json.dumps({**row, "passage": None})))


def test_several_references_are_kept_once_each_and_empty_ones_left_away(write: Write, read_as: Any) -> None:
    row = {"dialogue": "Hi", "summary": ["A greeting.", "", "A greeting.", "Somebody greets."]}
    (record,) = read_as("texts", write("a.jsonl", json.dumps(row))).records
    assert record.references == ("A greeting.", "Somebody greets.")
    assert record.output == "A greeting."


@pytest.mark.parametrize(("value", "text"), [(42, "42"), (1.5, "1.5"), (True, "true")])
def test_numbers_are_texts(write: Write, read_as: Any, value: Any, text: str) -> None:
    row = {"dialogue": value, "summary": value}
    (record,) = read_as("texts", write("a.jsonl", json.dumps(row))).records
    assert (record.input, record.output) == (text, text)


def test_a_text_that_is_a_list_is_a_bad_row(write: Write, read_as: Any) -> None:
    path = write("a.jsonl", '{"dialogue": ["a"], "summary": "b"}')
    with pytest.raises(Mistakes, match=r"a\.jsonl:1: dialogue: got \['a'\]; expected text"):
        read_as("texts", path)


def test_running_text_is_read_as_text(write: Write) -> None:
    reading = read(write("a.jsonl", '{"text": "Once."}\n{"text": "Twice."}'), record=Text, fields={"text": "the text"})
    assert [record.text for record in reading.records] == ["Once.", "Twice."]


def test_a_hundred_thousand_rows_would_take_seconds_at_most(write: Write, read_as: Any) -> None:
    row = json.dumps({"id": 1, "text": "a review of about twenty words " * 4, "label": "positive"})
    path = write("a.jsonl", "\n".join([row] * 25_000))
    started = time.process_time()
    assert len(read_as("labels", path).records) == 25_000
    assert time.process_time() - started < 1.5  # 0.25 s on an idle machine; the bound is wide for a busy one
