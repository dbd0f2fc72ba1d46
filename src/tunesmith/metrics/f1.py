"""Macro F1: the mean over labels of each label's F1, so that a rare label counts as much as a common one.

The labels are those seen in the predictions or references of the rows at hand, as in scikit-learn's
``f1_score(average="macro")``; a row may have one label or several.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.core.records import Score
from tunesmith.metrics import _counts
from tunesmith.metrics._counts import Array

BETTER = "higher"
UNIT = "macro F1"
RANGE = (0.0, 1.0)
READS = "text"


def statistics(scores: Sequence[Score]) -> Array:
    """True positives, false positives and false negatives of each label. `[rows, 3 x labels]`"""
    rows = [_counts.labels(score) for score in scores]
    place = {label: index for index, label in enumerate(sorted(frozenset().union(*(p | w for p, w in rows))))}
    found = np.zeros((len(rows), len(place), 3))
    for row, (predicted, wanted) in enumerate(rows):
        for column, kind in enumerate((predicted & wanted, predicted - wanted, wanted - predicted)):
            found[row, [place[label] for label in kind], column] = 1
    return found.reshape(len(rows), -1)


def aggregate(totals: Array) -> Array:
    """The mean F1 of the labels that occur in each resample; 0 where none does."""
    by_label = totals.reshape(len(totals), -1, 3)
    present = by_label.any(axis=2).sum(axis=1)
    return np.asarray(_counts.f1(by_label).sum(axis=1) / np.maximum(present, 1))
