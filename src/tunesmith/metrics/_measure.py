"""Measuring and comparing: a number never goes without its 95 % interval, its n and what to beware of.

Intervals are percentile bootstraps of 2,000 resamples of the rows (Efron & Tibshirani 1993, chapter 13); comparisons
are paired, both sides seeing the same resamples. Where every resample comes out the same (all right, all wrong, one
row) a percentile interval would have no width and promise a certainty nobody has. It is then widened by ``z² / (n +
z²)`` of the metric's range, which for a share of 0 or 1 is exactly Wilson's interval (1927).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Score
from tunesmith.core.rooms import choice

Array = NDArray[np.float64]

RESAMPLES = 2_000
SMALL = 100
_Z_SQUARED = 1.959964**2
_CHUNK = 4_000_000
"""Cells of the resampling matrix that lie in memory at a time (32 MB)."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric's value over `n` rows with its 95 % interval, and a caution where the test is small or saturated.

    `signature` holds the settings without which the number cannot be compared, for metrics that have such.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    caution: str = ""
    signature: str = ""

    def __str__(self) -> str:
        note = f" ({self.caution})" if self.caution else ""
        return f"{self.metric} {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}{note}"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the second of two systems is than the first on the same `n` rows, with its 95 % interval.

    Positive is better for every metric, also for those where lower is better.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    caution: str = ""

    @property
    def better(self) -> bool:
        """Whether the second is better beyond noise."""
        return self.low > 0

    @property
    def worse(self) -> bool:
        """Whether the second is worse beyond noise."""
        return self.high < 0


def measure(name: str, scores: Sequence[Score], seed: int = 0) -> Measurement:
    """The metric `name` over `scores`, with its 95 % bootstrap interval.

    Raises Mistake for an unknown metric, no rows, or rows whose score is not a number.
    """
    metric, scores = choice("metrics", name), counted(name, scores)
    rows = _statistics(name, scores)
    value = float(metric.aggregate(rows.sum(axis=0, keepdims=True))[0])
    drawn = np.concatenate([metric.aggregate(counts @ rows) for counts in _resamples(len(rows), seed)])
    bounds = _interval(value, drawn, len(rows), metric.RANGE)
    notes = (_caution(len(rows), bounds, value in metric.RANGE), _own(metric, "caution", scores))
    caution = "; ".join(note for note in notes if note)
    return Measurement(name, value, *bounds, len(rows), caution, _own(metric, "signature", scores))


def counted(name: str, scores: Sequence[Score]) -> Sequence[Score]:
    """The rows that the metric `name` is about: all of them, for most."""
    rows: Callable[[Sequence[Score]], Sequence[Score]] = getattr(choice("metrics", name), "rows", lambda scores: scores)
    return rows(scores)


def compare(name: str, first: Sequence[Score], second: Sequence[Score], seed: int = 0) -> Difference:
    """How much better `second` is than `first`, row by row the same examples, by a paired bootstrap.

    Raises ValueError when the two are not the same length, otherwise as `measure`.
    """
    if len(first) != len(second):
        raise ValueError(f"a paired comparison needs the same rows on both sides; got {len(first)} and {len(second)}")
    metric = choice("metrics", name)
    rows, others = (_statistics(name, counted(name, side)) for side in (first, second))
    sign = 1.0 if metric.BETTER == "higher" else -1.0
    before, after = (metric.aggregate(side.sum(axis=0, keepdims=True))[0] for side in (rows, others))
    drawn = np.concatenate(
        [metric.aggregate(counts @ others) - metric.aggregate(counts @ rows) for counts in _resamples(len(rows), seed)]
    )
    value, span = float(sign * (after - before)), metric.RANGE[1] - metric.RANGE[0]
    bounds = _interval(value, sign * drawn, len(rows), (-span, span))
    return Difference(name, value, *bounds, len(rows), _caution(len(rows), bounds, before == after in metric.RANGE))


def _own(metric: ModuleType, what: str, scores: Sequence[Score]) -> str:
    """What a metric says of these rows, "" where it has nothing to say."""
    return str(getattr(metric, what, lambda scores: "")(scores))


def _statistics(name: str, scores: Sequence[Score]) -> Array:
    metric = choice("metrics", name)
    if not scores:
        raise Mistake(f"{name}: got no rows to score; expected at least one; check that the split is not empty")
    rows: Array = metric.statistics(scores)
    broken = int((~np.isfinite(rows).all(axis=1)).sum())
    if broken:
        raise Mistake(
            f"{name}: {broken} of {len(scores)} rows scored no finite number; the model has diverged; "
            "train it again with a lower learning_rate"
        )
    return rows


def _resamples(n: int, seed: int) -> Iterator[Array]:
    """How often each row was drawn, in chunks of `[resamples, n]`: multinomial counts, made by drawing and counting."""
    generator, left = np.random.default_rng(seed), RESAMPLES
    while left:
        size = min(left, max(1, _CHUNK // n))
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        left -= size


def _interval(value: float, drawn: Array, n: int, span: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(bound) for bound in np.percentile(drawn, (2.5, 97.5)))
    if high - low > 1e-12 or not np.isfinite(span[1]):
        return low, high
    half = (span[1] - span[0]) * _Z_SQUARED / (n + _Z_SQUARED)
    return max(value - half, span[0]), min(value + half, span[1])


def _caution(n: int, bounds: tuple[float, float], saturated: bool) -> str:
    notes = []
    if saturated:
        notes.append("saturated: too easy or too hard a test to tell models apart")
    if n < SMALL:
        notes.append(f"n={n} is small: ±{(bounds[1] - bounds[0]) / 2:.2g}")
    return "; ".join(notes)
