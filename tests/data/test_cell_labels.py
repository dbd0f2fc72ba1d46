"""What a cell of a label column means."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.data._labels import LabelReader
from tunesmith.data._row import BadField

LABELS = ("negative", "positive")


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("positive", "positive"),
        (" Positive ", "positive"),
        ("POSITIVE", "positive"),
        (1, "positive"),
        ("1", "positive"),
        (0, "negative"),
        (1.0, "positive"),
        ("1.0", "positive"),
        (True, "positive"),
        (["positive"], "positive"),
    ],
)
def test_names_and_numbers_in_the_order_of_the_list(cell: Any, label: str) -> None:
    assert LabelReader(LABELS).read(cell, "label") == (label,)


def test_translations_are_remembered_and_counted() -> None:
    reader = LabelReader(LABELS)
    for cell in ("positive", 1, 1, "Negative"):
        reader.read(cell, "label")
    assert reader.translated == {"1 → positive": 2, "Negative → negative": 1}


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ("postive", r"label 'postive' is not in the list \(negative, positive\); did you mean 'positive'\?"),
        ("neutral!", r"label 'neutral!' is not in the list .*; correct it, or add it to `labels:`"),
        (2, r"label 2 is not in the list \(0 = negative, 1 = positive\); write `label_values: \{2: negative, …\}`"),
        (-1, r"label -1 is not in the list \(0 = negative"),
        ("", "no label; expected one"),
        (None, "no label; expected one"),
        ([], "no label; expected one"),
        (["negative", "positive"], r"2 labels \(negative, positive\); expected one, or the task multi_label"),
        (
            "negative|positive",
            "'negative.positive' is not in the list .*; several labels a row need the task multi_label",
        ),
    ],
)
def test_what_is_no_label_is_refused_with_the_list(cell: Any, complaint: str) -> None:
    with pytest.raises(BadField, match=f"^{complaint}"):
        LabelReader(LABELS).read(cell, "label")


def test_labels_that_are_numbers_are_names_not_places() -> None:
    reader = LabelReader(("1", "2", "3"))
    assert reader.read(1, "stars") == ("1",)
    with pytest.raises(BadField, match=r"label '0' is not in the list \(1, 2, 3\)"):
        reader.read(0, "stars")


def test_values_say_in_so_many_words_what_cells_mean() -> None:
    reader = LabelReader(LABELS, {1: "negative", "2": "positive", "-1": "negative"})
    assert [reader.read(cell, "label") for cell in (1, "2", -1)] == [("negative",), ("positive",), ("negative",)]
    with pytest.raises(Mistake, match="label_values: 'postive' is not a label; did you mean 'positive'"):
        LabelReader(LABELS, {1: "postive"})


def test_without_a_list_every_value_is_a_label() -> None:
    assert LabelReader().read("anything | at all", "label") == ("anything | at all",)
    assert LabelReader().read(3.0, "label") == ("3",)


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("a|c", ("a", "c")),
        (" a | b|", ("a", "b")),
        (["c", "a", "c"], ("c", "a")),
        ("a|b and c", ("a|b and c",)),
        ("0|2", ("a", "c")),
        ("", ()),
        (None, ()),
        ([], ()),
    ],
)
def test_several_labels_a_cell_when_that_is_the_task(cell: Any, labels: tuple[str, ...]) -> None:
    assert LabelReader(("a", "b", "c", "a|b and c"), several=True).read(cell, "labels") == labels
