"""Metrics of likelihood: a row's value is its total in nats, its weight the tokens or bytes that share it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.records import Score

Array = NDArray[np.float64]


def statistics(scores: Sequence[Score]) -> Array:
    """Nats, and tokens or bytes, of each row. `[rows, 2]`. Raises ValueError for scores that judge an output."""
    if any(score.prediction or score.references for score in scores):
        raise ValueError("these scores judge outputs; likelihood metrics take value=nats, weight=tokens or bytes")
    return np.array([(score.value, score.weight) for score in scores], dtype=np.float64)
