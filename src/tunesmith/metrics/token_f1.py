"""How much the words of an answer overlap with a reference: SQuAD's F1, best over references, averaged over rows.

``F1 = 2 P R / (P + R)`` over the two bags of words after normalisation (Rajpurkar et al. 2016, arXiv:1606.05250,
section 6.1). Where one of the two is empty the score is 1 if both are, else 0, as in SQuAD 2.0.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.records import Score
from tunesmith.metrics._mean import Array, best, overlap, ratio, weighted

BETTER = "higher"
UNIT = "F1 of words"
RANGE = (0.0, 1.0)
READS = "text"


def statistics(scores: Sequence[Score]) -> Array:
    """F1 of each row, and its weight. `[rows, 2]`"""
    return weighted((best(score, overlap) for score in scores), scores)


def aggregate(totals: Array) -> Array:
    """The weighted mean over rows."""
    return ratio(totals)
