from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tunesmith.core.records import Labelled
from tunesmith.metrics._spans import spans
from tunesmith.tasks import ner

TYPES = ner.Config(labels=["person", "creative-work", "location"])
WORDS = ("Jane", "Doe", "'s", "Paris", ";", "Paris", "|", "Jane", "Doe")


def found(output: str, words: tuple[str, ...] = WORDS) -> list[tuple[str, int, int]]:
    return list(spans(ner.tags(words, output, TYPES.labels)))


def test_the_answer_is_a_line_for_each_entity() -> None:
    record = Labelled("", tokens=WORDS, tags=("B-person", "I-person", "O", "B-location", "O", "O", "O", "O", "O"))
    assert ner.answer(record, TYPES) == "Jane Doe | person\nParis | location"
    assert ner.answer(Labelled("", tokens=("a", "b"), tags=("O", "O")), TYPES) == "none"


@given(some.lists(some.sampled_from(["O", "B-person", "I-person", "B-creative-work", "I-creative-work"]), min_size=1))
def test_what_is_written_is_read_back_where_every_word_is_another(tags: list[str]) -> None:
    words = tuple(f"word{place}" for place in range(len(tags)))
    record = Labelled("", tokens=words, tags=tuple(tags))
    score = ner.judge(record, ner.answer(record, TYPES), TYPES)
    assert list(spans(score.prediction)) == list(spans(tags))


def test_a_name_that_occurs_twice_is_taken_from_left_to_right() -> None:
    assert found("Jane Doe | person") == [("person", 0, 2)]
    assert found("Jane Doe | person\nJane Doe | person") == [("person", 0, 2), ("person", 7, 9)]
    assert found("Paris | location\nJane Doe | person") == [("location", 3, 4), ("person", 7, 9)]
    assert found("Paris | location\nParis | creative-work") == [("location", 3, 4), ("creative-work", 5, 6)]


def test_a_name_out_of_order_is_still_found() -> None:
    words = ("Jane", "saw", "Paris")
    assert found("Paris | location\nJane | person", words) == [("person", 0, 1), ("location", 2, 3)]


@pytest.mark.parametrize(
    "output", ["jane doe's | Person", "- Jane Doe 's | person.", "Jane  Doe's|person", " Jane Doe's | person \n\n"]
)
def test_spaces_case_and_bullets_do_not_matter(output: str) -> None:
    assert found(output) == [("person", 0, 3)]


@pytest.mark.parametrize(
    "output", ["none", "", "Jane Doe", "| person", "Jane Doe |", "Jane Doe | planet", "John | person", "Jan | person"]
)
def test_what_is_not_an_entity_of_the_text_counts_for_nothing(output: str) -> None:
    assert found(output) == []


def test_a_bar_in_a_name_and_no_word_in_two_entities() -> None:
    assert found("; Paris | | location") == [("location", 4, 7)]
    assert found("Jane Doe | person\nDoe | person\nJane Doe | location") == [("person", 0, 2), ("person", 8, 9)]


def test_a_sentence_without_entities_is_right_when_none_are_found() -> None:
    record = Labelled("a b", tokens=("a", "b"), tags=("O", "O"))
    assert ner.judge(record, "none", TYPES).value == 1.0
    assert ner.judge(record, "a | person", TYPES).value == 0.0


def test_running_text_works_without_tokens() -> None:
    record = Labelled("Jane saw  Paris.")
    assert ner.prompt(record, TYPES)[-1].content.endswith("\n\nJane saw Paris.")
    assert list(spans(ner.judge(record, "Jane | person", TYPES).prediction)) == [("person", 0, 1)]


def test_the_types_are_named_in_the_question() -> None:
    assert "Types: person, creative-work, location." in ner.prompt(Labelled("x"), TYPES)[-1].content
