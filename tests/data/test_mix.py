from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tunesmith.data._mix import How, counts, drawn, shares

SIZES = {"large": 900, "small": 100}


@pytest.mark.parametrize(
    ("how", "temperature", "limit", "large"),
    [
        ("proportional", 1.0, None, 900 / 1000),
        ("proportional", 1.0, 300, 300 / 400),  # T5's K: the large one counts as 300
        ("equal", 1.0, None, 1 / 2),
        ("temperature", 2.0, None, 30 / (30 + 10)),  # square roots
        ("temperature", 1.0, None, 900 / 1000),
        ("temperature", 2.0, 400, 20 / (20 + 10)),
        ("temperature", 1e9, None, 1 / 2),
    ],
)
def test_shares_are_t5s(how: How, temperature: float, limit: int | None, large: float) -> None:
    found = shares(SIZES, how, temperature, limit)
    assert found == pytest.approx({"large": large, "small": 1 - large})


@given(some.lists(some.integers(1, 10_000), min_size=1, max_size=6), some.integers(10, 5_000))
def test_all_rows_are_dealt_out_and_each_task_gets_one(sizes: list[int], total: int) -> None:
    parts = shares({str(place): size for place, size in enumerate(sizes)}, "proportional")
    dealt = counts(parts, total)
    assert min(dealt.values()) >= 1
    spare = sum(parts[name] * total < 1 for name in parts)
    assert total <= sum(dealt.values()) <= total + spare
    assert all(abs(dealt[name] - parts[name] * total) <= 1 for name in parts)


def test_rows_are_taken_in_whole_passes_of_different_orders() -> None:
    taken = drawn(range(10), 25, seed=3)
    assert Counter(taken[:10]) == Counter(taken[10:20]) == Counter(range(10))
    assert taken[:10] != taken[10:20]
    assert len(set(taken[20:])) == 5
    assert drawn(range(10), 25, seed=3) == taken != drawn(range(10), 25, seed=4)
