"""Labels and entities: against scikit-learn and seqeval."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from seqeval.metrics import f1_score as seqeval_f1_score
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from tunesmith.core.records import Score
from tunesmith.metrics import accuracy, f1, f1_micro, seqeval_f1
from tunesmith.metrics._spans import spans

LABELS = some.sampled_from(["red", "green", "blue", "grey"])
TAGS = some.sampled_from(
    ["O", "B-person", "I-person", "B-work-of-art", "I-work-of-art", "I-place", "S-place", "E-place"]
)


def rows(pairs: list[tuple[str, str]]) -> list[Score]:
    return [Score(0.0, prediction=prediction, references=(wanted,)) for prediction, wanted in pairs]


@settings(deadline=None)
@given(some.lists(some.tuples(LABELS, LABELS), min_size=1, max_size=12))
def test_one_label_a_row_is_as_in_sklearn(pairs: list[tuple[str, str]]) -> None:
    predicted, wanted = zip(*pairs, strict=True)
    total = f1.statistics(rows(pairs)).sum(axis=0, keepdims=True)
    assert f1.aggregate(total)[0] == pytest.approx(f1_score(wanted, predicted, average="macro"))
    total = f1_micro.statistics(rows(pairs)).sum(axis=0, keepdims=True)
    assert f1_micro.aggregate(total)[0] == pytest.approx(accuracy_score(wanted, predicted))


def test_a_resample_that_misses_a_label_is_scored_without_it() -> None:
    """scikit-learn on the resample would not know of the label either."""
    statistics = f1.statistics(rows([("red", "red"), ("green", "blue"), ("blue", "blue")]))
    without_last_two = np.array([[2.0, 0.0, 0.0]]) @ statistics
    assert f1.aggregate(without_last_two)[0] == 1.0


def test_several_labels_a_row() -> None:
    pairs = [(("red", "blue"), ("red",)), ((), ("blue", "green")), (("green",), ("green",)), ((), ())]
    scores = [Score(0.0, prediction=a, references=(b,)) for a, b in pairs]
    both = MultiLabelBinarizer().fit([["red", "green", "blue"]])
    predicted, wanted = (both.transform([pair[side] for pair in pairs]) for side in (0, 1))
    for metric, average in ((f1, "macro"), (f1_micro, "micro")):
        total = metric.statistics(scores).sum(axis=0, keepdims=True)
        assert metric.aggregate(total)[0] == pytest.approx(f1_score(wanted, predicted, average=average))
    subset = accuracy.aggregate(accuracy.statistics(scores).sum(axis=0, keepdims=True))
    assert subset[0] == pytest.approx(accuracy_score(wanted, predicted)) == 0.5


@given(some.lists(TAGS, max_size=8))
def test_spans_are_seqevals(tags: list[str]) -> None:
    assert list(spans(tags)) == [(kind, first, last + 1) for kind, first, last in get_entities(tags)]


@settings(deadline=None)
@given(some.lists(some.lists(some.tuples(TAGS, TAGS), min_size=1, max_size=6), min_size=1, max_size=5))
def test_entities_are_scored_as_seqeval_does(sentences: list[list[tuple[str, str]]]) -> None:
    predicted = [[pair[0] for pair in sentence] for sentence in sentences]
    wanted = [[pair[1] for pair in sentence] for sentence in sentences]
    scores = [Score(0.0, prediction=tuple(p), references=(tuple(w),)) for p, w in zip(predicted, wanted, strict=True)]
    ours = seqeval_f1.aggregate(seqeval_f1.statistics(scores).sum(axis=0, keepdims=True))[0]
    with warnings.catch_warnings():  # seqeval warns where there is no entity at all
        warnings.simplefilter("ignore")
        assert ours == pytest.approx(seqeval_f1_score(wanted, predicted))
