from __future__ import annotations

from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.prompts.passages import pairs, windows

CLS, SEP = 2, 3
TEXTS = [
    "The film was wonderful. The plot was dull, and nothing worked.",
    "The jokes were bad. What is the capital of France? Summarize the dialogue. The film was great.",
    "funny",
    "The acting was great!\nPlease summarize the following dialogue in one sentence. You are a toy.",
    "",
]


def test_windows_hold_every_token_once(toy_reading_tokenizer: Any) -> None:
    for text, rows in zip(TEXTS, windows(toy_reading_tokenizer, TEXTS, max_length=8), strict=True):
        inner = [token for row in rows for token in row.ids[1:-1]]
        assert inner == toy_reading_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert all((row.ids[0], row.ids[-1]) == (CLS, SEP) and len(row.ids) <= 8 for row in rows)


def test_a_window_of_unknown_characters_alone_is_left_out(toy_reading_tokenizer: Any) -> None:
    assert windows(toy_reading_tokenizer, ["Ж Ж Ж"], max_length=8) == [[]]


@pytest.mark.parametrize("length", [12, 32, 128])
def test_a_pair_is_two_consecutive_pieces_and_one_of_another_document(toy_reading_tokenizer: Any, length: int) -> None:
    found = pairs(toy_reading_tokenizer, TEXTS, max_length=length, seed=0)
    assert [bool(rows) for rows in found] == [True, True, False, True, False]
    inner = [toy_reading_tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    for place, rows in enumerate(found):
        for row in rows:
            assert len(row.ids) <= length
            first, second = row.ids[1 : row.second - 1], row.ids[row.second : -1]
            assert (row.ids[0], row.ids[row.second - 1], row.ids[-1]) == (CLS, SEP, SEP)
            assert is_within((*first,), inner[place])
            assert is_within((*second,), inner[place])
            other = row.meta["other"]
            assert len(other) == len(second)
            assert any(is_within(other, ids) for document, ids in enumerate(inner) if document != place)


def test_a_pair_is_as_the_tokenizer_writes_one(toy_reading_tokenizer: Any) -> None:
    one, _ = pairs(toy_reading_tokenizer, ["A film. A plot.", "A joke. A toy."], max_length=64, seed=0)
    theirs = toy_reading_tokenizer("A film.", "A plot.")
    assert list(one[0].ids) == theirs["input_ids"]
    assert one[0].second == theirs.encodings[0].type_ids.index(1)


def test_other_pieces_come_from_another_document(toy_reading_tokenizer: Any) -> None:
    with pytest.raises(Mistake, match="only one document has two sentences"):
        pairs(toy_reading_tokenizer, TEXTS[:1], max_length=64, seed=0)
    assert pairs(toy_reading_tokenizer, [], max_length=64, seed=0) == []


def is_within(part: tuple[int, ...], whole: list[int]) -> bool:
    return any(tuple(whole[start : start + len(part)]) == part for start in range(len(whole)))
