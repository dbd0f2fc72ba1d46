"""Perplexity of held-out text: how many tokens the model hesitates between, on average.

``exp(Σ nats / Σ tokens)``. A row is ``Score(value=total nats of its scored tokens, weight=number of those tokens)``.
Comparable only between models with the same tokenizer; across tokenizers, see `bits_per_byte`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tunesmith.core.records import Score
from tunesmith.metrics import _likelihood
from tunesmith.metrics._mean import Array, ratio

BETTER = "lower"
UNIT = "perplexity"
RANGE = (1.0, math.inf)
READS = "likelihood"


def statistics(scores: Sequence[Score]) -> Array:
    """Total nats and number of tokens of each row. `[rows, 2]`"""
    return _likelihood.statistics(scores)


def aggregate(totals: Array) -> Array:
    """The exponential of nats per token; infinite where that overflows."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(ratio(totals)))
