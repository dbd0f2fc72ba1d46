from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from sklearn.utils.class_weight import compute_class_weight

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake, Mistakes
from tunesmith.core.records import Labelled
from tunesmith.tasks import _balance, classification, multi_label

ROWS = [("ham",)] * 6 + [("spam",)] * 2


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.array([label for (label,) in ROWS])
    theirs = compute_class_weight("balanced", classes=np.array(["ham", "spam"]), y=labels)
    ours = _balance.class_weights(ROWS, "balanced")
    assert ours == pytest.approx({"ham": 8 / (2 * 6), "spam": 8 / (2 * 2)})
    assert list(ours.values()) == pytest.approx(theirs)
    assert sum(_balance.row_weights(ROWS, "balanced")) == pytest.approx(len(ROWS)), "together they count as before"


def test_a_row_of_several_labels_counts_their_mean() -> None:
    rows = [("film",), ("film", "rome"), ("film",), ("none",)]
    weight = _balance.class_weights(rows, "balanced")  # five marks of three classes: 3, 1 and 1
    assert weight == pytest.approx({"film": 5 / 9, "rome": 5 / 3, "none": 5 / 3})
    assert _balance.row_weights(rows, "balanced")[1] == pytest.approx((5 / 9 + 5 / 3) / 2)


def test_weights_of_ones_own() -> None:
    assert _balance.row_weights([("ham",), ("spam",)], {"spam": 4.0}) == [1.0, 4.0]
    with pytest.raises(Mistake, match="no training row has the label 'spma'; did you mean 'spam'"):
        _balance.class_weights(ROWS, {"spma": 2.0})
    with pytest.raises(Mistake, match="got 0 for spam; expected a number above 0"):
        _balance.class_weights(ROWS, {"spam": 0.0})


@given(some.lists(some.sampled_from(["a", "b", "c", "d"]), min_size=1))
def test_repeated_rows_make_classes_of_one_size(labels: list[str]) -> None:
    times = _balance.repeats([(label,) for label in labels])
    most = max(labels.count(label) for label in labels)
    assert min(times) >= 1
    for label in set(labels):
        mine = [count for count, other in zip(times, labels, strict=True) if other == label]
        assert sum(mine) == most
        assert max(mine) - min(mine) <= 1


def test_a_row_of_several_labels_is_repeated_for_its_rarest() -> None:
    rows = [("film",), ("film",), ("film",), ("film", "rome")]
    assert _balance.repeats(rows) == [1, 1, 1, 4]


def test_what_a_row_counts_as() -> None:
    assert classification.classes(Labelled("x", "spam"), classification.Config()) == ("spam",)
    config = multi_label.Config(labels=["rome", "film"])
    assert multi_label.classes(Labelled("x", "film", ("film", "rome")), config) == ("rome", "film")
    assert multi_label.classes(Labelled("x"), config) == ("none",)


@pytest.mark.parametrize("task", ["classification", "multi_label"])
def test_the_keys_are_the_tasks(task: str) -> None:
    config = choose("tasks", task, class_weights={"spam": 3}, sampling="balanced").config
    assert (config.class_weights, config.sampling) == ({"spam": 3.0}, "balanced")
    with pytest.raises(Mistakes, match="class_weights: got 'balancd'; expected 'none' or 'balanced'"):
        choose("tasks", task, class_weights="balancd")
