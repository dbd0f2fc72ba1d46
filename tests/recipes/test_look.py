"""What init sees in data: the task and why, the columns, the labels, files beside the training file, the shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.data._spec import source_of
from tunesmith.recipes._look import Seen, look

Look = Callable[..., Seen]
ENGLISH = "Two young men are standing outside near many bushes and number {} is looking at them."
GERMAN = "Zwei junge Männer stehen im Freien in der Nähe vieler Büsche und Nummer {} sieht sie an."


def labelled(count: int, *labels: str, text: str = "text", label: str = "label") -> str:
    lines = (f"an entirely made up sentence of number {n},{labels[n % len(labels)]}\n" for n in range(count))
    return f"{text},{label}\n" + "".join(lines)


@pytest.fixture
def see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """``see({"a.csv": text}, task)``: what is seen in the first file, the others lying beside it."""
    monkeypatch.chdir(tmp_path)

    def call(files: dict[str, str], task: str | None = None, **keys: Any) -> Seen:
        for name, text in files.items():
            Path(name).write_text(text, encoding=keys.get("encoding", "utf-8"))
        return look(source_of({"path": keys.pop("path", next(iter(files))), **keys}), task)

    return call


def test_a_guess_is_told_with_its_reason(see: Look) -> None:
    seen = see({"reviews.csv": labelled(600, "good", "bad")})
    assert (seen.task.name, seen.labels, seen.rows, seen.bad_rows) == ("classification", ("bad", "good"), 600, 0)
    assert seen.columns == {"input": "text", "output": "label"}
    assert seen.formats == ("csv",)
    assert seen.told == (
        "reviews.csv: read as csv, input from text, output from label",
        "the task is classification: 'label' has only 2 different values, which come again and again",
        "its 2 labels are bad, good",
        "validation: 10% of the rows, chosen by what they say, so that rows added later move none",
        "test: 10% of the rows, chosen by what they say, so that rows added later move none",
    )


def test_the_person_is_believed_about_the_task_and_the_columns_follow(see: Look) -> None:
    files = {"a.jsonl": "".join(json.dumps({"zig": f"text {n}", "zag": f"answer {n}"}) + "\n" for n in range(60))}
    assert see(files).task.name == "generation"
    seen = see(files, "question-answering")
    assert (seen.task.name, seen.columns) == ("question_answering", {"input": "zig", "output": "zag"})
    assert "the task is question_answering: as you said" in seen.told


def test_several_labels_in_a_row_are_multi_label_and_one_task_can_stand_for_the_other(see: Look) -> None:
    several = {"a.csv": labelled(60, "a", "b|c", "a|c", text="zig", label="zag")}
    seen = see(several)
    assert (seen.task.name, seen.labels) == ("multi_label", ("a", "b", "c"))
    seen = see({"b.csv": labelled(60, "a", "b", text="zig", label="zag")}, "multi-label")
    assert (seen.task.name, seen.columns) == ("multi_label", {"input": "zig", "output": "zag"})


def test_a_file_that_tells_nothing_to_us_can_be_read_for_a_task_that_is_given(see: Look) -> None:
    files = {"a.csv": "text,label\n" + "".join(f"sentence of number {n},kind {n}\n" for n in range(12))}
    assert see(files).task.name != "classification"
    assert see(files, "classification").rows == 12
    rows = ({"source": f"eine {n}", "target_text": f"one {n}", "note": f"by {n}"} for n in range(30))
    files = {"b.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    with pytest.raises(Mistake, match="expected texts and what is wanted for each"):
        see(files)
    assert see(files, "translation").columns == {"input": "source", "output": "target_text"}


def test_columns_guessed_for_another_task_are_left_alone(see: Look) -> None:
    row = {"words": ["Anna", "sings"], "ner_tags": ["B-person", "O"]}
    rows = ({**row, "text": f"sentence {n}", "label": "ab"[n % 2]} for n in range(30))
    files = {"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    assert see(files).columns == {"tokens": "words", "tags": "ner_tags"}
    assert see(files, "classification").columns == {"input": "text", "output": "label"}


def test_texts_are_no_labels(see: Look) -> None:
    files = {"a.csv": "text,topic\n" + "".join(f"sentence of number {n},topic {n}\n" for n in range(100))}
    with pytest.raises(Mistake, match=r"topic: got 100 different labels in 100 rows; expected a few .* another --task"):
        see(files, "classification")


def test_a_task_there_is_not_and_data_that_are_not_there(see: Look) -> None:
    with pytest.raises(Mistake, match="tasks: there is no 'clasification'; did you mean 'classification'"):
        see({"a.csv": labelled(20, "a", "b")}, "clasification")
    with pytest.raises(Mistake, match=r"b\.csv: no such file; did you mean a\.csv"):
        see({"a.csv": labelled(20, "a", "b")}, path="b.csv")
    with pytest.raises(Mistake, match=r"b\.csv: no such file"):
        see({"a.csv": labelled(20, "a", "b")}, "classification", path="b.csv")


def test_languages_are_recognised(see: Look) -> None:
    rows = "".join(json.dumps({"a": ENGLISH.format(n), "b": GERMAN.format(n)}) + "\n" for n in range(40))
    seen = see({"pairs.jsonl": rows})
    assert (seen.task.config.source_language, seen.task.config.target_language) == ("English", "German")
    short = "".join(json.dumps({"en": f"a {n}", "de": f"b {n}"}) + "\n" for n in range(40))
    seen = see({"short.jsonl": short}, "translation")
    assert (seen.task.config.source_language, seen.task.config.target_language) == ("", "")


def test_labels_are_those_of_all_files(see: Look) -> None:
    files = {"a.csv": labelled(40, "a", "b"), "b.csv": labelled(40, "b", "c")}
    seen = see(files, path=["a.csv", "b.csv"])
    assert (seen.labels, seen.rows) == (("a", "b", "c"), 80)


def test_bad_rows_are_counted_and_told(see: Look) -> None:
    seen = see({"a.csv": labelled(40, "a", "b") + ",a\nx,y,z\n"})
    assert (seen.rows, seen.bad_rows) == (40, 2)
    assert "2 bad rows are left out" in seen.told
    assert any("`tunesmith data check` shows them" in told for told in seen.told)


def test_files_beside_the_training_file_are_its_splits(see: Look) -> None:
    files = {name: labelled(60, "a", "b") for name in ("x.train.csv", "x.dev.csv", "x.test.csv")}
    seen = see(files)
    assert (seen.validation, seen.test) == ("x.dev.csv", "x.test.csv")
    assert "test: x.test.csv, which lies beside the training file" in seen.told


def test_a_file_beside_it_that_cannot_be_read_alike_is_none_of_its_splits(see: Look) -> None:
    files = {"train.csv": labelled(600, "a", "b"), "test.csv": "text\nonly texts\n", "val.csv": "text,label\n,\n"}
    seen = see(files)
    assert (seen.validation, seen.test) == (0.1, 0.1)
    assert see({"reviews.csv": labelled(600, "a", "b"), "test.csv": labelled(60, "a", "b")}).test == 0.1


@pytest.mark.parametrize(("rows", "share"), [(600, 0.1), (499, 0.2), (60, 0.2), (2, 0.3)])
def test_fewer_rows_give_larger_shares(see: Look, rows: int, share: float) -> None:
    seen = see({"a.csv": labelled(rows, "a", "b")}, "classification")
    assert (seen.validation, seen.test) == (share, share)


def test_many_labels_are_not_all_told(see: Look) -> None:
    seen = see({"a.csv": labelled(600, *(f"kind{n}" for n in range(30)))})
    assert len(seen.labels) == 30
    (told,) = [told for told in seen.told if "labels are" in told]
    assert told.endswith(" and 10 more")


def test_an_encoding_is_used_and_kept(see: Look) -> None:
    seen = see({"a.csv": labelled(40, "gut", "größer")}, encoding="cp1252")
    assert seen.labels == ("größer", "gut")
    assert seen.source.encoding == "cp1252"
