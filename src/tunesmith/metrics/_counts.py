"""F1 from counts that add up: true positives, false positives, false negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.records import Score

Array = NDArray[np.float64]
Labels = frozenset[str]

LEANING = 0.9
"""More of the rows than this with one label, and a share of right answers says little."""


def labels(score: Score) -> tuple[Labels, Labels]:
    """The labels predicted for a row and the labels it has; one label and a set of labels are both fine."""
    return _as_set(score.prediction), _as_set(score.references[0])


def _as_set(value: str | tuple[str, ...]) -> Labels:
    return frozenset((value,) if isinstance(value, str) else value)


def leaning(scores: Sequence[Score]) -> str:
    """A caution where nearly all rows have one label: whoever always gives it looks good without having looked."""
    found = Counter(label for score in scores if score.references for label in _as_set(score.references[0]))
    label, count = found.most_common(1)[0] if found else ("", 0)
    if count <= LEANING * len(scores):
        return ""
    share = f"{100 * count / len(scores):.0f} % of the rows are {label}"
    return f"{share}, and saying so always would be right as often; look at macro F1 (f1)"


def counts(predicted: frozenset[object], wanted: frozenset[object]) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of one row."""
    both = len(predicted & wanted)
    return both, len(predicted) - both, len(wanted) - both


def f1(totals: Array) -> Array:
    """``2 TP / (2 TP + FP + FN)`` over the last axis `[..., 3]`, 0 where there is nothing to count."""
    below = 2 * totals[..., 0] + totals[..., 1] + totals[..., 2]
    return np.divide(2 * totals[..., 0], below, out=np.zeros(below.shape), where=below != 0)
