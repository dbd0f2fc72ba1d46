"""Which task a file is for, told from its columns and what they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice, names
from tunesmith.data._guess import guess
from tunesmith.data._read import read

Write = Callable[..., str]
WORDS = [f"w{number}" for number in range(997)]


def text(seed: int, length: int) -> str:
    return " ".join(WORDS[(seed * 31 + place * 7) % len(WORDS)] for place in range(length))


def rows(*columns: Callable[[int], Any], names: str) -> str:
    keys = names.split()
    made = [dict(zip(keys, (column(n) for column in columns), strict=True)) for n in range(60)]
    return "\n".join(json.dumps(row) for row in made)


def short(n: int) -> str:
    return text(n, 12)


def long(n: int) -> str:
    return text(n, 120)


ENGLISH = "Two young men are standing outside near many bushes and number {} is looking at them."
GERMAN = "Zwei junge Männer stehen im Freien in der Nähe vieler Büsche und Nummer {} sieht sie an."
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]

CASES: dict[str, tuple[str, str, Mapping[str, Any], str]] = {
    "reviews": (
        rows(str, short, lambda n: ("good", "bad")[n % 2], names="id text label"),
        "classification",
        {"input": "text", "output": "label"},
        "'label' has only 2 different values",
    ),
    "odd names": (
        rows(str, short, lambda n: f"kind{n % 5}", names="id zig zag"),
        "classification",
        {"input": "zig", "output": "zag"},
        "'zag' has only 5 different values",
    ),
    "labels in order": (
        rows(short, lambda n: int(n > 30), names="sentence stars"),
        "classification",
        {"input": "sentence", "output": "stars"},
        "they are numbers: write their names under `labels`, in this order",
    ),
    "sets of labels": (
        rows(short, lambda n: "|".join(("x", "y", "z")[: n % 4]), names="text topics"),
        "multi_label",
        {"input": "text", "output": "topics"},
        "'topics' has only 3 different values, which come again and again, several in a row",
    ),
    "lists of labels": (
        rows(short, lambda n: ["x", "y", "z"][n % 3 :], names="text labels"),
        "multi_label",
        {"input": "text", "output": "labels"},
        "several in a row",
    ),
    "tagged": (
        rows(lambda n: ["Anna", "sings"], lambda n: ["B-person", "O"], names="words ner_tags"),
        "ner",
        {"tokens": "words", "tags": "ner_tags"},
        "name 1 kinds of entities",
    ),
    "questions on passages": (
        rows(short, long, lambda n: text(n, 3), names="question passage answer"),
        "question_answering",
        {"input": "question", "context": "passage", "output": "answer"},
        "on a passage",
    ),
    "short answers": (
        rows(short, lambda n: text(n, 3), names="question answer"),
        "question_answering",
        {"input": "question", "output": "answer"},
        "without a passage",
    ),
    "worked answers": (
        rows(short, long, names="question answer"),
        "generation",
        {"input": "question", "output": "answer"},
        "answered at length",
    ),
    "conversations": (rows(lambda n: TURNS, names="messages"), "chat", {}, "a list of turns"),
    "instructions": (
        rows(short, lambda n: "", long, names="instruction input output"),
        "generation",
        {},
        "alpaca",
    ),
    "dialogues": (
        rows(str, long, short, names="id dialogue summary"),
        "summarization",
        {"input": "dialogue", "output": "summary"},
        "'summary' is a summary of 'dialogue'",
    ),
    "three summaries": (
        rows(long, short, lambda n: text(n + 7, 9), names="dialogue summary1 summary2"),
        "summarization",
        {"input": "dialogue", "output": ["summary1", "summary2"]},
        "is a summary of",
    ),
    "long and short": (
        rows(long, short, names="zig zag"),
        "summarization",
        {"input": "zig", "output": "zag"},
        "much shorter",
    ),
    "language columns": (
        rows(short, short, names="en de"),
        "translation",
        {"input": "en", "output": "de"},
        "named after languages",
    ),
    "pairs": (
        rows(lambda n: {"en": "dog", "de": "Hund"}, names="translation"),
        "translation",
        {"input": "translation.en", "output": "translation.de"},
        "the same text in en and de",
    ),
    "two languages": (
        rows(ENGLISH.format, GERMAN.format, names="zig zag"),
        "translation",
        {"input": "zig", "output": "zag"},
        "'zig' is en and 'zag' de",
    ),
    "long texts": (
        rows(long, lambda n: text(n + 500, 100), names="zig zag"),
        "generation",
        {"input": "zig", "output": "zag"},
        "two columns of free text",
    ),
    "free text": (
        rows(short, lambda n: text(n + 500, 14), names="zig zag"),
        "generation",
        {"input": "zig", "output": "zag"},
        "two columns of free text",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_task_is_guessed_and_the_reason_told(case: str, write: Write) -> None:
    content, task, columns, why = CASES[case]
    found = guess(write("a.jsonl", content))
    assert (found.task, found.columns) == (task, columns)
    assert why in found.why


@pytest.mark.parametrize("case", CASES)
def test_what_is_guessed_can_be_read_for_that_task(case: str, write: Write) -> None:
    """The columns and the task go together: nothing is proposed that `read` would refuse."""
    path = write("a.jsonl", CASES[case][0])
    found = guess(path)
    assert found.task in names("tasks")
    task = choice("tasks", found.task)
    needs = {"record": task.RECORD, "fields": task.FIELDS, "optional": task.OPTIONAL, "aliases": task.ALIASES}
    labels, several = found.labels or None, found.task == "multi_label"
    assert len(read(path, columns=found.columns, labels=labels, several_labels=several, **needs).records) == 60


def test_labels_are_those_of_the_whole_file_in_the_order_of_numbers(write: Write) -> None:
    lines = "text,label\n" + "".join(f"{text(n, 9)},{n // 500}\n" for n in range(6000))
    assert guess(write("a.csv", lines)).labels == tuple(str(number) for number in range(12))


def test_formats_with_one_meaning(write: Write) -> None:
    assert guess(write("a.conll", "Anna\tB-person\nsings\tO\n\n")).task == "ner"
    assert guess(write("a.conll", "Anna\tB-person\nsings\tO\n\n")).labels == ("person",)
    squad = {"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "a"}]}]}]}]}
    assert guess(write("a.json", json.dumps(squad))).task == "question_answering"
    english, german = write("t.en", "a dog\n"), write("t.de", "ein Hund\n")
    assert guess(english.replace(".en", ".{en,de}")).task == "translation"
    assert german


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"text": "only this"}', "got the columns text; expected texts and what is wanted for each"),
        ('{"chosen": "a", "rejected": "b"}', "got pairs of chosen and rejected answers; expected one answer a row"),
        ("[1]", "no row can be read"),
    ],
)
def test_a_file_with_nothing_to_learn_is_a_mistake(write: Write, content: str, complaint: str) -> None:
    with pytest.raises(Mistake, match=complaint):
        guess(write("a.jsonl", content))
