"""What every metric must be, whichever file it is: sums of statistics, a value in range, one number by any route."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from tunesmith.core.records import Score
from tunesmith.core.rooms import choice, names, summary
from tunesmith.metrics._measure import compare, counted, measure

WORDS = ("red", "green", "blue", "old", "new", "boat", "house")
TAGS = ("O", "O", "B-person", "I-person", "B-place", "I-place")


def examples(reads: str, rows: int, seed: int) -> list[Score]:
    """Random rows of the kind a metric reads, about half of them right."""
    random = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(random.choice(WORDS, size=random.integers(1, 6)))

    def tags() -> tuple[str, ...]:
        return tuple(str(tag) for tag in random.choice(TAGS, size=5))

    if reads == "likelihood":
        return [Score(value=float(random.gamma(2.0, 20.0)), weight=float(random.integers(5, 60))) for _ in range(rows)]
    made = text if reads == "text" else tags
    pairs = [(made(), made()) for _ in range(rows)]
    if reads == "text":  # questions, of which every third has no answer
        pairs = [("" if row % 3 == 0 else a, b) for row, (a, b) in enumerate(pairs)]
    return [Score(0.0, prediction=a if random.choice(2) else b, references=(a,)) for a, b in pairs]


@pytest.fixture(params=names("metrics"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def metric(name: str) -> ModuleType:
    return choice("metrics", name)


def test_says_what_it_is(name: str, metric: ModuleType) -> None:
    assert summary("metrics", name)
    assert metric.BETTER in ("higher", "lower")
    assert metric.READS in ("text", "tags", "likelihood")
    assert metric.UNIT
    assert metric.RANGE[0] < metric.RANGE[1]


def test_statistics_are_a_finite_row_each(metric: ModuleType) -> None:
    scores = examples(metric.READS, rows=30, seed=1)
    statistics = metric.statistics(scores)
    assert statistics.shape[0] == len(scores)
    assert statistics.ndim == 2
    assert np.isfinite(statistics).all()


def test_statistics_add_up(metric: ModuleType) -> None:
    """Counting a row twice is the same as having it twice: that is what lets a bootstrap be a matrix product."""
    scores = examples(metric.READS, rows=20, seed=2)
    statistics = metric.statistics(scores)
    once_or_twice = np.arange(20) % 2 + 1.0
    repeated = [score for score, times in zip(scores, once_or_twice, strict=True) for _ in range(int(times))]
    by_product = metric.aggregate((once_or_twice @ statistics)[None])
    by_hand = metric.aggregate(metric.statistics(repeated).sum(axis=0, keepdims=True))
    np.testing.assert_allclose(by_product, by_hand, rtol=1e-12)


def test_aggregate_is_finite_and_in_range_even_of_nothing(metric: ModuleType) -> None:
    statistics = metric.statistics(examples(metric.READS, rows=30, seed=3))
    values = metric.aggregate(np.concatenate([statistics, np.zeros_like(statistics[:1])]))
    assert values.shape == (31,)
    assert not np.isnan(values).any()
    assert (values >= metric.RANGE[0] - 1e-9).all()
    assert (values <= metric.RANGE[1] + 1e-9).all()


def test_perfect_output_reaches_the_end_of_the_range(metric: ModuleType) -> None:
    if metric.READS == "likelihood":
        perfect = [Score(0.0, weight=7.0)] * 4
    else:
        right: str | tuple[str, ...] = (
            "one old boat near the house" if metric.READS == "text" else ("B-place", "I-place")
        )
        perfect = [Score(1.0, prediction=right, references=(right,))] * 4
    value = metric.aggregate(metric.statistics(perfect).sum(axis=0, keepdims=True))[0]
    assert value == metric.RANGE[metric.BETTER == "higher"]


def test_measure_lies_in_its_interval_and_repeats(name: str, metric: ModuleType) -> None:
    scores = examples(metric.READS, rows=150, seed=4)
    found = measure(name, scores, seed=5)
    assert found == measure(name, scores, seed=5)
    assert found.low <= found.value <= found.high
    assert found.high - found.low > 0
    assert found.n == len(counted(name, scores)) > 0
    assert ("small" in found.caution) == (found.n < 100)
    assert math.isclose(found.value, measure(name, scores[::-1]).value, rel_tol=1e-12)


def test_compare_is_positive_when_the_second_is_better(name: str, metric: ModuleType) -> None:
    worse = examples(metric.READS, rows=150, seed=6)
    if metric.READS == "likelihood":
        better = [Score(score.value / 2, score.weight) for score in worse]
    else:
        better = [
            Score(0.0, prediction=score.references[0] if row % 2 else score.prediction, references=score.references)
            for row, score in enumerate(worse)
        ]
    gain, loss = compare(name, worse, better), compare(name, better, worse)
    assert gain.better
    assert not gain.worse
    assert loss.worse
    assert math.isclose(gain.value, -loss.value)
    assert 0 < gain.low < gain.value < gain.high
