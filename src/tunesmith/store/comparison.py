"""What differs between two runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.store.rows import Comparison, ConfigChange, DataVersionRow, EvaluationRow, MetricChange, RunRow

_NEVER_THE_SAME = "output_dir"


def compare(
    first: RunRow, second: RunRow, data: DataVersionRow | None, other_data: DataVersionRow | None
) -> Comparison:
    """Two runs side by side: the keys, the data and the metrics in which they differ."""
    return Comparison(
        first=first,
        second=second,
        config=tuple(config_changes(first.config, second.config)),
        data=None if first.data_version == second.data_version else (data, other_data),
        metrics=tuple(_change(*pair) for pair in _pairs(first.evaluations, second.evaluations)),
    )


def config_changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[ConfigChange]:
    """The dotted keys whose values differ, in the order of the files. `output_dir`, which always does, is left out."""
    here, there = dict(_flat(first)), dict(_flat(second))
    for key in {**here, **there}:
        if key != _NEVER_THE_SAME and here.get(key) != there.get(key):
            yield ConfigChange(key, here.get(key), there.get(key))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _pairs(
    first: tuple[EvaluationRow, ...], second: tuple[EvaluationRow, ...]
) -> Iterator[tuple[EvaluationRow | None, EvaluationRow | None]]:
    """Measurements of the same thing: in the same setting, or else the only one of that metric left in each run."""
    left, right = list(first), list(second)
    for one in first:
        for other in right:
            if _what(one) == _what(other) and one.setting == other.setting:
                left.remove(one)
                right.remove(other)
                yield one, other
                break
    for what in dict.fromkeys(map(_what, left + right)):
        ones, others = ([row for row in rows if _what(row) == what] for rows in (left, right))
        if len(ones) == len(others) == 1:
            yield ones[0], others[0]
        else:
            yield from ((one, None) for one in ones)
            yield from ((None, other) for other in others)


def _what(row: EvaluationRow) -> tuple[str, str]:
    return row.split, row.metric


def _change(first: EvaluationRow | None, second: EvaluationRow | None) -> MetricChange:
    either = first or second
    assert either is not None, "a pair lacks one measurement at most"
    difference = apart = None
    if first and second and first.value is not None and second.value is not None:
        difference, apart = second.value - first.value, _apart(first, second)
    return MetricChange(either.split, either.metric, first, second, difference, apart)


def _apart(first: EvaluationRow, second: EvaluationRow) -> bool | None:
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return None
    return first.high < second.low or second.high < first.low
