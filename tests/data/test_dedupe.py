"""Rows that say the same, exactly or nearly."""

from __future__ import annotations

import random

import pytest

from tunesmith.core.records import Chat, Labelled, Message
from tunesmith.data._dedupe import across, conflicts, exact_duplicates, near_duplicates, same_question

LONG = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "while",
    "twenty",
    "other",
    "animals",
    "look",
    "on",
    "and",
    "wonder",
    "why",
    "he",
    "does",
    "it",
]
WORDS = [f"word{number}" for number in range(500)]


def rows(*texts: str) -> list[Labelled]:
    return [Labelled(text, "a") for text in texts]


def test_exact_is_to_the_letter_question_and_answer() -> None:
    records = [
        Labelled("one", "a"),
        Labelled("two", "a"),
        Labelled("one", "a"),
        Labelled("one", "b"),
        Labelled("One", "a"),
    ]
    assert exact_duplicates(records) == ((0, 2),)


def test_the_same_question_is_one_whatever_its_case_and_spaces() -> None:
    assert same_question(rows("It is  good", "it\nis GOOD", "it is bad")) == ((0, 1),)


def test_a_conflict_is_one_question_with_several_answers() -> None:
    records = [Labelled("one", "a"), Labelled("One", "A"), Labelled("two", "a"), Labelled("two ", "b")]
    assert conflicts(records, same_question(records)) == ((2, 3),)


@pytest.mark.parametrize(
    ("change", "is_near"),
    [
        (lambda words: [*words[:5], "RED", *words[6:]], True),  # 2 of 21 pairs differ: 19 / 23 = 0.83
        (lambda words: [word.upper() + "!" for word in words], True),
        (lambda words: [*words[:5], "red", *words[6:12], "big", *words[13:]], False),  # 17 / 25 = 0.68
        (lambda words: words[::-1], False),
    ],
)
def test_near_is_eight_tenths_of_the_pairs_of_words(change: object, is_near: bool) -> None:
    records = rows(" ".join(LONG), "nothing like it at all", " ".join(change(LONG)))  # type: ignore[operator]  # a lambda
    assert near_duplicates(records) == (((0, 2),) if is_near else ())


def test_scripts_without_blanks_and_texts_without_words_are_compared_too() -> None:
    japanese = "今日はとても良い天気なので公園まで散歩に行きましたそして帰りました"
    assert near_duplicates(rows(japanese, japanese + "。", "全く違う文章です", "😀 😀", "😀 😀", "?!")) == (
        (0, 1),
        (3, 4),
    )


def test_questions_on_one_passage_are_compared_by_what_they_ask() -> None:
    passage = " ".join(LONG * 5)
    records = [Labelled("Who jumps?", context=passage), Labelled("Why does he?", context=passage)]
    assert near_duplicates(records) == ()
    records += [Labelled("who jumps", context=passage), Labelled("Who jumps?", context="another passage")]
    assert near_duplicates(records) == ((0, 2),)


def test_conversations_are_compared_by_what_leads_to_the_last_answer() -> None:
    def chat(*turns: str) -> Chat:
        return Chat(tuple(Message("assistant" if number % 2 else "user", turn) for number, turn in enumerate(turns)))

    records = [chat("Hi", "Ho"), chat("hi", "Hello"), chat("Hi", "Ho", "And?", "Nothing.")]
    assert same_question(records) == ((0, 1),)


def test_nearly_all_near_pairs_are_found_and_nothing_else() -> None:
    """Two hundred random texts of thirty words, each with a twin that differs in one word: 29 / 33 = 0.88 alike."""
    chance = random.Random(0)
    originals = [[chance.choice(WORDS) for _ in range(30)] for _ in range(200)]
    twins = [[*text[:7], "changed", *text[8:]] for text in originals]
    groups = near_duplicates(rows(*(" ".join(text) for text in originals + twins)))
    assert len(groups) >= 198  # the bands miss one pair in a hundred thousand at 0.88
    assert all(second == first + 200 for first, second in groups)


def test_a_thousand_rows_of_one_template_are_one_group() -> None:
    groups = near_duplicates(rows(*(" ".join([*LONG, f"number{n}"]) for n in range(1000))))
    assert [len(group) for group in groups] == [1000]


def test_across_keeps_the_groups_of_several_splits() -> None:
    assert across(((0, 1), (1, 2)), ["train", "train", "test"]) == ((1, 2),)
