"""Bits the model needs for each byte of UTF-8 text: comparable between any two models, whatever their tokenizers.

``Σ nats / (ln 2 · Σ bytes)``. A row is ``Score(value=total nats of the text, weight=its length in UTF-8 bytes)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunesmith.core.records import Score
from tunesmith.metrics import _likelihood
from tunesmith.metrics._mean import Array, ratio

BETTER = "lower"
UNIT = "bits per byte"
RANGE = (0.0, math.inf)
READS = "likelihood"


def statistics(scores: Sequence[Score]) -> Array:
    """Total nats and bytes of each row. `[rows, 2]`"""
    return _likelihood.statistics(scores)


def aggregate(totals: Array) -> Array:
    """Bits per byte of the sums."""
    return ratio(totals) / math.log(2)
