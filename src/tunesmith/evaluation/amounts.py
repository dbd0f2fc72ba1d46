"""How amounts are written for people: seconds, memory, counts, qualities; a dash where there is none."""

from __future__ import annotations

import math

NONE = "–"
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def is_number(value: object) -> bool:
    """Whether `value` is a finite number; None, NaN and infinity are not amounts."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def duration(seconds: float | None) -> str:
    """``4.2 ms``, ``0.80 s``, ``12 s``, ``5 min 12 s``, ``1 h 7 min``."""
    if seconds is None or not is_number(seconds):
        return NONE
    if seconds < 10:
        return f"{_digits(seconds)} s" if seconds >= 0.1 or seconds == 0 else f"{_digits(seconds * 1_000)} ms"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole // _MINUTE, "min", whole % _MINUTE, "s")
    if whole < _DAY:
        return _two(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    return _two(whole // _DAY, "d", whole % _DAY // _HOUR, "h")


def size(number_of_bytes: float | None) -> str:
    """``0 B``, ``512 kB``, ``3.7 MB``, ``1.9 GB``; decimal units."""
    if number_of_bytes is None or not is_number(number_of_bytes):
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number_of_bytes >= 0.9995 * scale:
            return f"{_digits(number_of_bytes / scale)} {unit}"
    return f"{number_of_bytes:.0f} B"


def memory(megabytes: float | None) -> str:
    """``870 MB``, ``1.9 GB``, from megabytes."""
    return NONE if megabytes is None else size(megabytes * 1e6)


def count(number: float | None) -> str:
    """``921,600``, ``1.22 M``, ``135 M``: exact up to a million."""
    if number is None or not is_number(number):
        return NONE
    for unit, scale in (("B", 1e9), ("M", 1e6)):
        if number >= scale:
            return f"{_digits(number / scale)} {unit}"
    return f"{number:,.0f}" if float(number).is_integer() or number >= 100 else f"{number:.1f}"


def quality(value: float | None) -> str:
    """``0.834``, ``41.27``, ``1,204``: enough digits to tell two rungs apart."""
    if value is None or not is_number(value):
        return NONE
    magnitude = abs(value)
    decimals = 3 if magnitude < 10 else 2 if magnitude < 100 else 1 if magnitude < 1_000 else 0
    return _minus(f"{value:,.{decimals}f}")


def difference(value: float | None) -> str:
    """A quality with its sign: ``+0.213``, ``−0.020``."""
    if value is None or not is_number(value):
        return NONE
    return quality(value) if value < 0 else f"+{quality(value)}"


def interval(low: float | None, high: float | None) -> str:
    """``0.801 to 0.865``; nothing where there is no interval."""
    return f"{quality(low)} to {quality(high)}" if is_number(low) and is_number(high) else ""


def words(key: object) -> str:
    """A field's name as it is said: ``peak memory mb``; a metric nobody named is the "quality"."""
    return str(key or "quality").replace("_", " ")


def _digits(value: float) -> str:
    """Three significant digits without a needless tail: ``0.80``, ``3.7``, ``12``, ``870``."""
    if value >= 9.95 or value == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def _two(much: int, unit: str, little: int, small_unit: str) -> str:
    return f"{much} {unit} {little} {small_unit}" if little else f"{much} {unit}"


def _minus(text: str) -> str:
    return text.replace("-", "−")
