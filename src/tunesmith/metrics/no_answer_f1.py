"""How often a question without an answer is left unanswered: SQuAD 2.0's `NoAns_f1`, which equals its `NoAns_exact`.

Over the rows whose reference is empty; an output that is empty after normalisation abstains. Rajpurkar et al. 2018,
arXiv:1806.03822, and the evaluation script that comes with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.records import Score
from tunesmith.metrics._mean import Array, best, overlap, ratio, weighted

BETTER = "higher"
UNIT = "share of questions without answer"
RANGE = (0.0, 1.0)
READS = "text"


def rows(scores: Sequence[Score]) -> Sequence[Score]:
    """Questions without an answer."""
    return [score for score in scores if not any(score.references)]


def statistics(scores: Sequence[Score]) -> Array:
    """Abstained or not, and the row's weight. `[rows, 2]`"""
    return weighted((best(score, overlap) for score in scores), scores)


def aggregate(totals: Array) -> Array:
    """The weighted mean over rows."""
    return ratio(totals)
