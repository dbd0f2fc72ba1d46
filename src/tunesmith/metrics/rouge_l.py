"""ROUGE-L: overlap in the longest common subsequence of words.

F-measure with Porter's stemmer, the best of several references (rouge-score's `score_multi`), averaged over rows: the
settings most papers on summaries report. Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries". The
scale is 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.records import Score
from tunesmith.metrics import _rouge
from tunesmith.metrics._mean import Array, ratio

BETTER = "higher"
UNIT = "ROUGE-L F"
RANGE = (0.0, 1.0)
READS = "text"


def statistics(scores: Sequence[Score]) -> Array:
    """F-measure of each row against its best reference, and its weight. `[rows, 2]`"""
    return _rouge.statistics("rougeL", scores)


def aggregate(totals: Array) -> Array:
    """The weighted mean over rows."""
    return ratio(totals)
