"""From amounts to places on a picture: linear and logarithmic scales, and the round amounts worth a tick."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

# Between a millisecond and a month the round amounts are not powers of ten.
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_TIMES = (
    *(round(step * 10**power, 6) for power in range(-4, 1) for step in (1, 2, 5)),
    *(10, 20, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 20 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 5 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 5 * _DAY, 10 * _DAY, 30 * _DAY),
)
_MEGABYTES = tuple(step * 10**power for power in range(7) for step in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class Axis:
    """What is drawn along one side: its name, how an amount is written, and whether it is logarithmic.

    `round_amounts` are the ones a logarithmic axis may put a tick at.
    """

    label: str
    written: Callable[[float], str]
    logarithmic: bool = False
    round_amounts: tuple[float, ...] = ()


def time_axis(label: str, written: Callable[[float], str]) -> Axis:
    """A logarithmic axis of seconds, with ticks at round times."""
    return Axis(label, written, logarithmic=True, round_amounts=_TIMES)


def memory_axis(label: str, written: Callable[[float], str]) -> Axis:
    """A logarithmic axis of megabytes."""
    return Axis(label, written, logarithmic=True, round_amounts=_MEGABYTES)


@dataclass(frozen=True, slots=True)
class Scale:
    """Amounts `low` to `high` laid over pixels `start` to `end`; `start` may lie beyond `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, amount: float) -> float:
        """The pixel of an amount."""
        low, high, at = (math.log(x) if self.logarithmic else x for x in (self.low, self.high, amount))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def bounds(amounts: Iterable[float], logarithmic: bool = False, room: float = 0.08) -> tuple[float, float]:
    """The range that holds all amounts, with a share `room` of it free on either side."""
    held = sorted(math.log(amount) if logarithmic else amount for amount in amounts)
    span = held[-1] - held[0]
    # One amount alone, or all alike, still wants a range to stand in.
    least = math.log(4) if logarithmic else max(abs(held[-1]) * 0.1, 1e-3)
    free = max(span * room, (least - span) / 2)
    low, high = held[0] - free, held[-1] + free
    return (math.exp(low), math.exp(high)) if logarithmic else (low, high)


def ticks(axis: Axis, low: float, high: float, most: int = 6) -> list[float]:
    """Round amounts between `low` and `high`, at most `most` of them."""
    if axis.logarithmic:
        inside = [amount for amount in axis.round_amounts if low <= amount <= high]
        if len(inside) >= 3:
            return _thinned(inside, most)
    step = _round_step((high - low) / most, (1, 2, 5, 10) if axis.logarithmic else (1, 2, 2.5, 5, 10))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_texts(axis: Axis, at: Sequence[float]) -> list[str]:
    """How the ticks are written: with as few decimals as tell them apart on a linear axis."""
    if axis.logarithmic:
        return [_bare(axis.written(amount)) for amount in at]
    for decimals in range(7):
        if all(abs(round(amount, decimals) - amount) < 1e-9 for amount in at):
            break
    return [f"{amount:,.{decimals}f}".replace("-", "−") for amount in at]


def _bare(text: str) -> str:
    """``1.0 GB`` as ``1 GB``: a tick is exact, and its zeros say nothing."""
    number, space, unit = text.partition(" ")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


def _thinned(amounts: Sequence[float], most: int) -> list[float]:
    return list(amounts[:: math.ceil(len(amounts) / most)])


def _round_step(least: float, round_steps: Sequence[float]) -> float:
    power = math.pow(10, math.floor(math.log10(least)))
    return next(step * power for step in round_steps if step * power >= least * (1 - 1e-9))
