"""How often each of several tasks comes in a mixture, and which of its rows are taken.

Raffel et al. 2020, arXiv:1910.10683, section 3.5.2: with ``e_m`` rows in task m and the limit K on what counts,

* proportional: ``r_m = min(e_m, K) / Σ_n min(e_n, K)``;
* temperature: each ``r_m`` to the power ``1/T``, made to sum to 1 again;
* equal: ``r_m = 1/N``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

Some = TypeVar("Some")
How = Literal["proportional", "equal", "temperature"]


def shares(sizes: Mapping[str, int], how: How, temperature: float = 2.0, limit: int | None = None) -> dict[str, float]:
    """The share of each task in the rows of a mixture, together 1."""
    power = {"proportional": 1.0, "temperature": 1.0 / temperature, "equal": 0.0}[how]
    weight = {name: counted(size, limit) ** power for name, size in sizes.items()}
    return {name: one / sum(weight.values()) for name, one in weight.items()}


def counted(size: int, limit: int | None) -> int:
    """Rows that a task of `size` rows counts as."""
    return size if limit is None else min(size, limit)


def counts(parts: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` rows dealt out by `parts`, each task one at least; the largest remainders are rounded up."""
    exact = {name: part * total for name, part in parts.items()}
    dealt = {name: int(rows) for name, rows in exact.items()}
    by_remainder = sorted(exact, key=lambda name: dealt[name] - exact[name])
    for name in by_remainder[: total - sum(dealt.values())]:
        dealt[name] += 1
    return {name: max(1, rows) for name, rows in dealt.items()}


def drawn(rows: Sequence[Some], count: int, seed: int) -> list[Some]:
    """`count` of the rows: passes over all of them, each in an order of its own, so that none comes twice too soon."""
    order, taken = random.Random(seed), list[Some]()
    while len(taken) < count:
        taken += order.sample(rows, len(rows))
    return taken[:count]
