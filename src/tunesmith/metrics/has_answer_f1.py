"""F1 of words over the questions that have an answer, where others have none: SQuAD 2.0's `HasAns_f1`.

Where every question has an answer it would be `token_f1` again, and is not reported. Rajpurkar et al. 2018,
arXiv:1806.03822, and the evaluation script that comes with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.records import Score
from tunesmith.metrics._mean import Array, best, overlap, ratio, weighted

BETTER = "higher"
UNIT = "F1 of words"
RANGE = (0.0, 1.0)
READS = "text"


def rows(scores: Sequence[Score]) -> Sequence[Score]:
    """Questions with an answer, if there are others."""
    answered = [score for score in scores if any(score.references)]
    return answered if len(answered) < len(scores) else []


def statistics(scores: Sequence[Score]) -> Array:
    """F1 of each row, and its weight. `[rows, 2]`"""
    return weighted((best(score, overlap) for score in scores), scores)


def aggregate(totals: Array) -> Array:
    """The weighted mean over rows."""
    return ratio(totals)
