"""Splits by content: adding rows moves none; and the version of data, which is its content."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Chat, Labelled, Message
from tunesmith.data._split import position, split
from tunesmith.data._version import data_version

ROWS = [Labelled(f"text number {number}", "a") for number in range(2000)]
texts = st.lists(st.text(min_size=1), min_size=1, max_size=30)


def side_of(rows: list[Labelled]) -> dict[str, str]:
    parts = split(rows, 0.2, 0.2)._asdict()
    return {record.input: name for name, part in parts.items() for record in part}


def test_every_row_is_on_one_side_in_the_order_it_came_and_the_shares_are_about_right() -> None:
    parts, place = split(ROWS, 0.1, 0.2), {row: number for number, row in enumerate(ROWS)}
    assert sorted(place[row] for part in parts for row in part) == list(range(len(ROWS)))
    for part in parts:
        assert list(part) == sorted(part, key=place.__getitem__)
    # Four standard deviations of a binomial: sqrt(2000 * 0.2 * 0.8) = 18, sqrt(2000 * 0.1 * 0.9) = 13.
    assert abs(len(parts.test) - 400) < 72
    assert abs(len(parts.validation) - 200) < 54


@settings(max_examples=50, deadline=None)
@given(texts, texts)
def test_adding_rows_never_moves_a_row(first: list[str], more: list[str]) -> None:
    base = [Labelled(text) for text in first] + ROWS[:200]
    before = side_of(base)
    after = side_of([Labelled(text) for text in more] + base[::-1])
    assert {text: after[text] for text in before} == before


def test_a_larger_validation_split_leaves_the_test_split_alone() -> None:
    assert split(ROWS, 0.1, 0.2).test == split(ROWS, 0.3, 0.2).test
    assert set(split(ROWS, 0.1, 0.2).validation) < set(split(ROWS, 0.3, 0.2).validation)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Labelled("It is good", "a", source="x:1"), Labelled("it  is\nGOOD", "b", source="y:9")),
        (Labelled("Who?", "Anna", context="p"), Labelled("who?", "Otto", context="P")),
        (
            Chat((Message("user", "Hi"), Message("assistant", "Ho"))),
            Chat((Message("user", "hi"), Message("assistant", "Hello", trained=False))),
        ),
    ],
)
def test_rows_that_ask_the_same_stand_on_the_same_side(one: Labelled, other: Labelled) -> None:
    assert position(one) == position(other)


def test_the_salt_and_nothing_else_deals_anew() -> None:
    assert split(ROWS, 0.1, 0.1) == split(ROWS, 0.1, 0.1)
    assert split(ROWS, 0.1, 0.1, salt="1").test != split(ROWS, 0.1, 0.1).test


def test_the_place_of_a_row_is_the_same_in_every_version_of_tunesmith() -> None:
    # sha256 of "\0text number 0" begins with these 56 bits; were this to change, test rows would become training rows.
    assert position(ROWS[0]) == 0xD5915BA09BD806 / 2**56


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [
        ((1.0, 0.0), "validation: got 1; expected a share of the rows between 0 and 1, or a file"),
        ((0.1, -0.1), "test: got -0.1; expected a share"),
        ((0.5, 0.5), "leave no rows to train on"),
        ((0.0001, 0.0), "validation: got 20 rows and a share of 0.0001, which comes to none"),
        ((0.0, 0.9999), "train: got 20 rows and a share of 0.0001"),
    ],
)
def test_shares_that_make_no_sense_are_mistakes(shares: tuple[float, float], complaint: str) -> None:
    with pytest.raises(Mistake, match=complaint):
        split(ROWS[:20], *shares)


def test_a_version_is_the_content_in_any_order_from_any_file() -> None:
    version = data_version(ROWS)
    assert len(version) == 64
    assert data_version(ROWS[::-1]) == version
    moved = [Labelled(row.input, row.output, source="elsewhere:1") for row in ROWS]
    assert data_version(moved) == version


@pytest.mark.parametrize(
    "changed",
    [
        ROWS[1:],
        [*ROWS, ROWS[0]],
        [Labelled("text number 0", "b"), *ROWS[1:]],
        [Labelled("Text number 0", "a"), *ROWS[1:]],
    ],
)
def test_any_change_of_content_is_another_version(changed: list[Labelled]) -> None:
    assert data_version(changed) != data_version(ROWS)
