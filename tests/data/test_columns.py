"""Which column is which: as given, by shape, by name, by content; and what is said when it cannot be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.core.errors import Mistake

Write = Callable[..., str]


def test_given_columns_go_before_everything_else(write: Write, read_as: Any) -> None:
    path = write("a.csv", "text,label,title,stars\nlong,negative,short,positive\n")
    reading = read_as("labels", path, columns={"input": "title", "output": "stars"})
    assert (reading.records[0].input, reading.records[0].output) == ("short", "positive")
    assert "(as given); not used: text, label" in reading.notes[0]
    reading = read_as("labels", path, columns={"input": "title"})
    assert (reading.records[0].input, reading.records[0].output) == ("short", "negative")
    joined = read_as("labels", path, columns={"input": ["title", "text"]})
    assert joined.records[0].input == "short\n\nlong"


def test_given_columns_go_before_a_shape(write: Write, read_as: Any) -> None:
    row = {"instruction": "Label.", "input": "good", "output": "fine", "label": "positive"}
    path = write("a.jsonl", json.dumps(row))
    reading = read_as("labels", path, columns={"input": "input", "output": "label"})
    assert (reading.records[0].input, reading.records[0].output) == ("good", "positive")


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"input": "txt"}, r"columns: no column 'txt' \(for input\); it has text, label; did you mean 'text'\?"),
        ({"input": "zzz"}, r"columns: no column 'zzz' \(for input\); known: label, text"),
        ({"inptu": "text"}, r"columns: there is no field 'inptu' here; did you mean 'input'\?"),
    ],
)
def test_a_column_or_field_that_is_not_there_is_a_mistake(
    write: Write, read_as: Any, columns: dict[str, str], complaint: str
) -> None:
    with pytest.raises(Mistake, match=rf"a\.csv: {complaint}"):
        read_as("labels", write("a.csv", "text,label\ngood,positive\n"), columns=columns)


@pytest.mark.parametrize(
    ("header", "expected"),
    [("Review,Sentiment", "by name"), ("input,output", "by name"), ("SENTENCE , class", "by name")],
)
def test_usual_names_are_found_whatever_their_case(write: Write, read_as: Any, header: str, expected: str) -> None:
    reading = read_as("labels", write("a.csv", f"{header}\ngood,positive\nbad,negative\n"))
    assert reading.records[0].input == "good"
    assert expected in reading.notes[0]


def test_our_own_name_goes_before_a_usual_one(write: Write, read_as: Any) -> None:
    reading = read_as("labels", write("a.csv", "text,input,label\nno,yes,positive\n"))
    assert reading.records[0].input == "yes"


def test_a_column_is_used_once(write: Write, read_as: Any) -> None:
    path = write("a.csv", "label,remark,other\npositive,so good,yes I do\nnegative,so bad,no way\n")
    with pytest.raises(Mistake, match="none is known as output"):
        read_as("labels", path, columns={"input": "label"}, labels=("yes", "no"), aliases={"output": ("label",)})


def test_numbered_columns_are_several_references_in_their_order(write: Write, read_as: Any) -> None:
    row = {"dialogue": "Hi", "topic1": "x", "summary2": "two", "summary10": "ten", "summary1": "one", "summary3": ""}
    path = write("a.jsonl", json.dumps(row))
    (record,) = read_as("texts", path).records
    assert record.outputs == ("one", "two", "ten")
    (record,) = read_as("texts", path, columns={"output": ["summary2", "summary1"]}).records
    assert record.outputs == ("two", "one")


def test_a_file_without_header_is_mapped_by_content_and_it_is_told(write: Write, read_as: Any) -> None:
    path = write("a.tsv", "so good\t1\nso bad\t0\nfine\t1\n")
    reading = read_as("labels", path)
    assert [(record.input, record.output) for record in reading.records] == [
        ("so good", "positive"),
        ("so bad", "negative"),
        ("fine", "positive"),
    ]
    said = " ".join(reading.notes)
    assert "output from column_2, input from column_1 (guessed from the content); write `columns:`" in said
    assert "has no header: its columns are called column_1, column_2" in said
    assert "labels: 0 → negative, 1 → positive" in said


@pytest.mark.parametrize("labels", [("negative", "positive"), ()])
def test_the_label_column_is_the_one_whose_values_are_labels(
    write: Write, read_as: Any, labels: tuple[str, ...]
) -> None:
    lines = [f"{n},{'negative' if n % 2 else 'positive'},a remark of some length numbered {n}" for n in range(20)]
    path = write("a.csv", "id,zig,zag\n" + "\n".join(lines))
    reading = read_as("labels", path, labels=labels)
    assert reading.columns == {"input": ("zag",), "output": ("zig",)}
    assert reading.labels == ("negative", "positive")


def test_two_columns_of_free_text_are_taken_in_their_order_and_it_is_told(write: Write, read_as: Any) -> None:
    reading = read_as("texts", write("a.csv", "id,goal,aim\n1,write,done\n2,read,well\n"))
    assert (reading.records[0].input, reading.records[0].output) == ("write", "done")
    assert "guessed from the content" in reading.notes[0]


def test_a_column_of_language_pairs_is_taken_apart(write: Write, read_as: Any) -> None:
    path = write("a.jsonl", json.dumps({"id": "1", "translation": {"en": "dog", "de": "Hund"}}))
    (record,) = read_as("texts", path, aliases={"output": ("translation",)}).records
    assert (record.input, record.output) == ("dog", "Hund")
    (record,) = read_as("texts", path, columns={"input": "translation.de", "output": "translation.en"}).records
    assert (record.input, record.output) == ("Hund", "dog")


def test_when_it_cannot_be_told_the_columns_are_listed_with_what_to_write(write: Write, read_as: Any) -> None:
    path = write("a.csv", "one,two,three\n" + "".join(f"a{n},b{n},c{n}\n" for n in range(30)))
    with pytest.raises(Mistake) as caught:
        read_as("labels", path)
    assert str(caught.value) == (
        f"{path}: got the columns one, two, three; none is known as input or output (input: the text to label; "
        "output: its label); write `columns: {input: one, output: two}` with the right ones"
    )


def test_an_optional_field_is_used_where_it_is(write: Write, read_as: Any) -> None:
    (record,) = read_as("texts", write("a.csv", "question,passage,summary\nWho?,Anna sang.,Anna\n")).records
    assert record.context == "Anna sang."
    (record,) = read_as("texts", write("b.csv", "question,summary\nWho?,Anna\n")).records
    assert record.context == ""
