"""F1 of named entities: an entity is right when its type and both its ends are.

Micro-averaged over the entities of all sentences, equal to seqeval's and conlleval's F1 (Tjong Kim Sang & De Meulder
2003).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.core.records import Score
from tunesmith.metrics import _counts
from tunesmith.metrics._counts import Array
from tunesmith.metrics._spans import spans

BETTER = "higher"
UNIT = "F1 of entities"
RANGE = (0.0, 1.0)
READS = "tags"


def statistics(scores: Sequence[Score]) -> Array:
    """Entities found, invented and missed in each sentence. `[sentences, 3]`"""
    found = [
        _counts.counts(frozenset(spans(score.prediction)), frozenset(spans(score.references[0]))) for score in scores
    ]
    return np.array(found, dtype=np.float64)


def aggregate(totals: Array) -> Array:
    """``2 TP / (2 TP + FP + FN)`` of the sums."""
    return _counts.f1(totals)
