"""chrF, 0 to 100: F-score of character 1- to 6-grams with recall counting twice as much; kind to rich morphology.

``chrF = (1 + β²) P R / (β² P + R)``, β = 2, P and R averaged over the orders (Popović 2015). Equal to sacrebleu's
default; of several references the one with the best sentence score counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np

from tunesmith.core.records import Score
from tunesmith.metrics._mean import Array
from tunesmith.metrics._sacrebleu import signature_of

BETTER = "higher"
UNIT = "chrF points"
RANGE = (0.0, 100.0)
READS = "text"

_ORDERS = range(1, 7)
_BETA_SQUARED = 4


def statistics(scores: Sequence[Score]) -> Array:
    """For each order: n-grams written, n-grams of the reference, n-grams in both. `[rows, 18]`"""
    return np.array([_best(cast(str, score.prediction), score.references) for score in scores], dtype=np.float64)


def aggregate(totals: Array) -> Array:
    """chrF of each resample from its sums."""
    written, wanted, both = np.moveaxis(totals.reshape(len(totals), len(_ORDERS), 3), 2, 0)
    used = (written > 0) & (wanted > 0)
    orders = np.maximum(used.sum(axis=1), 1)
    precision = np.divide(both, written, out=np.zeros(both.shape), where=used).sum(axis=1) / orders
    recall = np.divide(both, wanted, out=np.zeros(both.shape), where=used).sum(axis=1) / orders
    below = _BETA_SQUARED * precision + recall
    above = 100 * (1 + _BETA_SQUARED) * precision * recall
    return np.asarray(np.divide(above, below, out=np.zeros(len(totals)), where=below != 0))


def signature(scores: Sequence[Score]) -> str:
    """sacrebleu's signature: references, case, orders, version."""
    from sacrebleu.metrics.chrf import CHRF

    return signature_of(CHRF(), scores)


def _best(prediction: str, references: Sequence[str | tuple[str, ...]]) -> Array:
    rows = np.array([_counts(prediction, cast(str, reference)) for reference in references], dtype=np.float64)
    return cast(Array, rows[int(np.argmax(aggregate(rows)))])


def _counts(prediction: str, reference: str) -> list[int]:
    found: list[int] = []
    for order in _ORDERS:
        ours, theirs = _grams(prediction, order), _grams(reference, order)
        # sacrebleu does not count what was written at an order that the reference is too short for.
        found += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
    return found


def _grams(text: str, order: int) -> Counter[str]:
    text = "".join(text.split())
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))
