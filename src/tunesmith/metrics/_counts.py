"""F1 from counts that add up: true positives, false positives, false negatives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.records import Score

Array = NDArray[np.float64]
Labels = frozenset[str]


def labels(score: Score) -> tuple[Labels, Labels]:
    """The labels predicted for a row and the labels it has; one label and a set of labels are both fine."""
    return _as_set(score.prediction), _as_set(score.references[0])


def _as_set(value: str | tuple[str, ...]) -> Labels:
    return frozenset((value,) if isinstance(value, str) else value)


def counts(predicted: frozenset[object], wanted: frozenset[object]) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of one row."""
    both = len(predicted & wanted)
    return both, len(predicted) - both, len(wanted) - both


def f1(totals: Array) -> Array:
    """``2 TP / (2 TP + FP + FN)`` over the last axis `[..., 3]`, 0 where there is nothing to count."""
    below = 2 * totals[..., 0] + totals[..., 1] + totals[..., 2]
    return np.divide(2 * totals[..., 0], below, out=np.zeros(below.shape), where=below != 0)
