"""The share of answers that equal a reference after SQuAD's normalisation (lower case, no punctuation, no articles).

Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1; the best of several references counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.records import Score
from tunesmith.metrics._mean import Array, best, ratio, weighted, words

BETTER = "higher"
UNIT = "share of answers"
RANGE = (0.0, 1.0)
READS = "text"


def statistics(scores: Sequence[Score]) -> Array:
    """Equal or not, and the row's weight. `[rows, 2]`"""
    return weighted((best(score, _equal) for score in scores), scores)


def aggregate(totals: Array) -> Array:
    """The weighted share of equal answers."""
    return ratio(totals)


def _equal(prediction: str, reference: str) -> float:
    return float(words(prediction) == words(reference))
