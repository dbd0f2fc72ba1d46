"""Micro F1: the F1 of all label decisions taken together, the usual number where a row has several labels.

Where every row has exactly one label it equals accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.core.records import Score
from tunesmith.metrics import _counts
from tunesmith.metrics._counts import Array

BETTER = "higher"
UNIT = "micro F1"
RANGE = (0.0, 1.0)
READS = "text"


def statistics(scores: Sequence[Score]) -> Array:
    """True positives, false positives, false negatives of each row. `[rows, 3]`"""
    return np.array([_counts.counts(*_counts.labels(score)) for score in scores], dtype=np.float64)


def aggregate(totals: Array) -> Array:
    """``2 TP / (2 TP + FP + FN)`` of the sums."""
    return _counts.f1(totals)


def caution(scores: Sequence[Score]) -> str:
    """A word where nearly all rows have the same label."""
    return _counts.leaning(scores)
