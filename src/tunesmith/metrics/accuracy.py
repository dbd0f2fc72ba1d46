"""The share of rows that are right: the prediction equals one of the references.

A row without references was judged elsewhere, and its `value` counts (1.0 for right). A row of several labels is
right when the whole set is (subset accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.records import Score
from tunesmith.metrics import _counts
from tunesmith.metrics._mean import Array, ratio, weighted

BETTER = "higher"
UNIT = "share of rows right"
RANGE = (0.0, 1.0)
READS = "text"


def statistics(scores: Sequence[Score]) -> Array:
    """Right or not, and the row's weight. `[rows, 2]`"""
    return weighted((float(_right(score)) for score in scores), scores)


def aggregate(totals: Array) -> Array:
    """The weighted share of right rows."""
    return ratio(totals)


def _right(score: Score) -> float:
    return score.prediction in score.references if score.references else score.value


def caution(scores: Sequence[Score]) -> str:
    """A word where nearly all rows have the same label."""
    return _counts.leaning(scores)
