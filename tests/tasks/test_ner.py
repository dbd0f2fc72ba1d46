from __future__ import annotations

import pytest
from hypothesis import given, settings
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


VOCABULARY = ("us", "US", "New", "York", "NewYork", "'s", "-", "|", "none", "Paris", "paris", ";")


@some.composite
def sentences(draw: some.DrawFn) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words that repeat, overlap, differ in case alone or are punctuation; BIO tags, entities touching too."""
    words, tags = list[str](), list[str]()
    for length in draw(some.lists(some.integers(1, 3), max_size=8)):
        kind = draw(some.sampled_from(["", *TYPES.labels]))
        words += draw(some.lists(some.sampled_from(VOCABULARY), min_size=length, max_size=length))
        tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)] if kind else ["O"] * length
    return tuple(words), tuple(tags)


def stands_untagged_before(words: tuple[str, ...], tags: tuple[str, ...]) -> bool:
    """Whether an entity's words also stand between the entity before it and the entity itself."""
    before = 0
    for _, first, end in spans(tags):
        if any(words[place : place + end - first] == words[first:end] for place in range(before, first)):
            return True
        before = end
    return False


@settings(max_examples=400)
@given(sentences())
def test_what_is_written_is_read_back_to_the_very_tags(sentence: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    words, wanted = sentence
    output = ner.answer(Labelled("", tokens=words, tags=wanted), TYPES)
    assert (ner.tags(words, output, TYPES.labels) == wanted) != stands_untagged_before(words, wanted)


def test_the_words_as_they_are_spelled_go_before_those_that_only_resemble() -> None:
    assert found("US | location", ("join", "us", "in", "the", "US")) == [("location", 4, 5)]
    assert found("New York | location", ("NewYork", "or", "New", "York")) == [("location", 2, 4)]
    assert found("- 5 | person", ("5", "or", "-", "5")) == [("person", 2, 4)]
    assert found("- 5 | person", ("5", "or", "5")) == [("person", 0, 1)]
    assert found("us | location", ("in", "the", "US")) == [("location", 2, 3)]


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
