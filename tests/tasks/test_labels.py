from __future__ import annotations

import pytest
from pydantic import ValidationError

from tunesmith.core.records import Labelled
from tunesmith.metrics._measure import measure
from tunesmith.tasks import classification, multi_label

SENTIMENT = classification.Config(labels=["negative", "positive"])
TOPICS = multi_label.Config(labels=["sport", "law, order", "food"])


@pytest.mark.parametrize(
    ("instruction", "asked"),
    [
        ("Classify the text below.", "Classify the text below. Answer with one word: negative or positive."),
        ("Is this review positive or negative?", "Is this review positive or negative?"),
        ("Is this Positive or NEGATIVE?", "Is this Positive or NEGATIVE?"),
        ("Is this review positive?", "Is this review positive? Answer with one word: negative or positive."),
        (
            "Is it nonnegative or positive?",
            "Is it nonnegative or positive? Answer with one word: negative or positive.",
        ),
        ("", "Answer with one word: negative or positive."),
    ],
)
def test_labels_are_listed_where_the_instruction_lacks_them(instruction: str, asked: str) -> None:
    config = classification.Config(instruction=instruction, labels=["negative", "positive"])
    assert classification.prompt(Labelled("Good fun."), config)[0].content == f"{asked}\n\nGood fun."


def test_labels_of_several_words_are_not_called_words() -> None:
    config = classification.Config(instruction="Sort.", labels=["a", "not b", "c"])
    assert classification.prompt(Labelled("x"), config)[0].content == "Sort. Answer with one label: a, not b or c.\n\nx"
    config = classification.Config(instruction="Sort.", labels=["spam"])
    assert classification.prompt(Labelled("x"), config)[0].content == "Sort. Answer with one word: spam.\n\nx"


def test_without_labels_the_instruction_stands_alone() -> None:
    assert (
        classification.prompt(Labelled("Hm."), classification.Config(instruction="Sort."))[0].content == "Sort.\n\nHm."
    )
    assert classification.candidates(classification.Config()) == ()


@pytest.mark.parametrize("output", ["positive", " Positive.", "POSITIVE\n", '"positive"', "**positive**"])
def test_case_and_punctuation_do_not_make_a_label_wrong(output: str) -> None:
    score = classification.judge(Labelled("Fun.", "positive"), output, SENTIMENT)
    assert (score.value, score.prediction, score.references) == (1.0, "positive", ("positive",))


def test_more_than_the_label_is_not_the_label() -> None:
    assert classification.judge(Labelled("Fun.", "positive"), "not positive", SENTIMENT).value == 0.0


def test_labels_that_differ_in_punctuation_only_stay_apart() -> None:
    config = classification.Config(labels=["c", "c++", "C#", "yes!", "yes"])
    for label in config.labels:
        assert classification.judge(Labelled("x", label), label, config).prediction == label


def test_numbers_are_names_and_truth_values_are_sent_back() -> None:
    assert classification.Config(labels=[1, 2, 3]).labels == ("1", "2", "3")
    with pytest.raises(ValidationError, match="in quotes"):
        classification.Config(labels=[True, False])
    with pytest.raises(ValidationError, match="each label once"):
        classification.Config(labels=["a", "b", "a"])


def test_a_set_of_labels_has_one_spelling() -> None:
    record = Labelled("Match abandoned.", "food", ("food", "sport"))
    assert multi_label.answer(record, TOPICS) == "sport, food"
    assert multi_label.answer(Labelled("Nothing.", "none"), TOPICS) == "none"
    assert multi_label.answer(Labelled("Nothing."), TOPICS) == "none"


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("sport, food", ("sport", "food")),
        ("Food\nSport.", ("sport", "food")),
        ("food, food", ("food",)),
        ("law, order, sport", ("sport", "law, order")),
        ("none", ()),
        ("", ()),
        ("food, weather", ("food", "weather")),
    ],
)
def test_a_written_list_is_read_as_a_set(output: str, found: tuple[str, ...]) -> None:
    assert multi_label.judge(Labelled("x", "food"), output, TOPICS).prediction == found


def test_the_empty_set_can_be_right() -> None:
    scores = [
        multi_label.judge(Labelled("x", "none"), "none", TOPICS),
        multi_label.judge(Labelled("y", "food", ("food", "sport")), "sport", TOPICS),
    ]
    assert measure("accuracy", scores).value == 0.5
    assert measure("f1_micro", scores).value == pytest.approx(2 / 3)  # 1 found, none invented, 1 missed
