"""Metrics that are a weighted mean, and the words of a text as question answering counts them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.records import Score

Array = NDArray[np.float64]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def weighted(values: Iterable[float], scores: Sequence[Score]) -> Array:
    """Statistics `[rows, 2]` of a mean: value times weight, and weight."""
    weights = np.array([score.weight for score in scores], dtype=np.float64)
    return np.stack([np.array(list(values), dtype=np.float64) * weights, weights], axis=1)


def ratio(totals: Array) -> Array:
    """The first statistic over the second, 0 where the second is 0. `[resamples, 2] -> [resamples]`."""
    return np.divide(totals[:, 0], totals[:, 1], out=np.zeros(len(totals)), where=totals[:, 1] != 0)


def best(score: Score, compare: Callable[[str, str], float]) -> float:
    """The highest `compare(prediction, reference)` over a row's references."""
    return max(compare(cast(str, score.prediction), cast(str, reference)) for reference in score.references)


def words(text: str) -> list[str]:
    """The words of an answer after SQuAD's normalisation: lower case, no punctuation, no articles.

    Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1, and the evaluation script that comes with it.
    """
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def overlap(prediction: str, reference: str) -> float:
    """F1 of two bags of normalised words, 0 to 1."""
    ours, theirs = Counter(words(prediction)), Counter(words(reference))
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())
