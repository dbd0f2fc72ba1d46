"""The pictures of a sweep: every trial as a line through its values, and how much each key matters, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tunesmith.evaluation.amounts import is_number
from tunesmith.evaluation.plots import Frame, svg
from tunesmith.evaluation.scales import Scale, bounds

WIDE, NARROW = Frame(960, 360, left=70, right=70, top=26, bottom=46), Frame(400, 320, left=34, right=34, bottom=46)
_BAR, _GAP = 18, 12


def parallel(sweep: Mapping[str, Any], frame: Frame = WIDE) -> str:
    """Parallel coordinates: an axis for each key and each objective, a line for each trial that was measured.

    An objective is better when lower, and drawn higher. Returns an `<svg>` element, or "" for fewer than two trials.
    """
    trials = [trial for trial in sweep["trials"] if trial["values"]]
    if len(trials) < 2:
        return ""
    top, bottom = frame.top, frame.height - frame.bottom
    axes = [_Axis.of_key(told, bottom, top) for told in sweep["search"]]
    axes += [_Axis.of_objective(name, trials, bottom, top) for name in sweep["objectives"]]
    gap = (frame.width - frame.left - frame.right) / (len(axes) - 1)
    across = [frame.left + place * gap for place in range(len(axes))]
    behind = sorted(trials, key=lambda trial: (trial["chosen"], trial["state"] == "finished"))
    parts = [_line(trial, axes, across) for trial in behind]
    parts += [axis.drawn(at, top, bottom) for axis, at in zip(axes, across, strict=True)]
    said = "; ".join(_spoken(trial) for trial in trials)
    return svg(parts, frame, f"Trials through {', '.join(axis.label for axis in axes)}. {said}.")


def importance_bars(shares: Mapping[str, float], frame_width: int = 460) -> str:
    """A bar for each key, as long as its share of what moves the first objective; "" where it is not known."""
    if not shares:
        return ""
    frame = Frame(frame_width, len(shares) * (_BAR + _GAP) + _GAP)
    left, right = 170, frame.width - 60
    parts = []
    for place, (name, share) in enumerate(shares.items()):
        down = _GAP + place * (_BAR + _GAP)
        middle, length = down + _BAR - 5, max(1.0, share * (right - left))
        parts.append(f'<text class="tick" x="{left - 10}" y="{middle}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="share" x="{left}" y="{down}" width="{length:.1f}" height="{_BAR}" rx="3"/>')
        parts.append(f'<text class="tick" x="{left + length + 8:.1f}" y="{middle}">{share:.0%}</text>')
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return svg(parts, frame, f"Importance: {said}.")


class _Axis:
    """One of the upright axes: where a value stands on it, and what is written beside it."""

    def __init__(
        self, label: str, kind: str, name: str, places: Mapping[Any, float] | Scale, written: Sequence[Any]
    ) -> None:
        self.label, self.kind, self.name, self.places, self.written = label, kind, name, places, written

    @classmethod
    def of_key(cls, told: Mapping[str, Any], bottom: float, top: float) -> _Axis:
        key = told["key"]
        label = key.rpartition(".")[2]
        if "choices" in told:
            step = (bottom - top) / max(1, len(told["choices"]) - 1)
            places = {choice: bottom - step * place for place, choice in enumerate(told["choices"])}
            return cls(label, "params", key, places, told["choices"])
        scale = Scale(told["low"], told["high"], bottom, top, told["logarithmic"])
        return cls(label, "params", key, scale, _between(told))

    @classmethod
    def of_objective(cls, name: str, trials: Sequence[Mapping[str, Any]], bottom: float, top: float) -> _Axis:
        seen = [trial["values"][name] for trial in trials if is_number(trial["values"].get(name))]
        low, high = bounds(seen)
        label = {"quality": "validation loss", "forgetting": "forgetting (KL)"}.get(name, name)
        return cls(label, "values", name, Scale(low, high, top, bottom), (min(seen), max(seen)))

    def at(self, trial: Mapping[str, Any]) -> float | None:
        """The height of a trial's value, None where it has none."""
        value = trial[self.kind].get(self.name)
        if isinstance(self.places, Scale):
            return self.places(value) if is_number(value) else None
        return self.places.get(value)

    def drawn(self, x: float, top: float, bottom: float) -> str:
        """The axis with its values and its name."""
        place = self.places if isinstance(self.places, Scale) else self.places.__getitem__
        ticks = "".join(
            f'<text class="name" x="{x + 6:.1f}" y="{place(value) + 4:.1f}">{escape(_short(value))}</text>'
            for value in self.written
        )
        line = f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
        where = f'x="{x:.1f}" y="{bottom + 26}" text-anchor="middle"'
        return f'{line}{ticks}<text class="label" {where}>{escape(self.label)}</text>'


def _line(trial: Mapping[str, Any], axes: Sequence[_Axis], across: Sequence[float]) -> str:
    places = [(x, y) for x, axis in zip(across, axes, strict=True) if (y := axis.at(trial)) is not None]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    kind = "chosen" if trial["chosen"] else trial["state"]
    return f'<g><title>{escape(_spoken(trial))}</title><polyline class="trial {kind}" points="{path}"/></g>'


def _spoken(trial: Mapping[str, Any]) -> str:
    told = {**trial["params"], **trial["values"]}
    state = "chosen" if trial["chosen"] else trial["state"]
    return f"trial {trial['number']} ({state}): {', '.join(f'{name} {_short(value)}' for name, value in told.items())}"


def _between(told: Mapping[str, Any]) -> tuple[float, ...]:
    """The ends of a range, and its middle."""
    low, high = told["low"], told["high"]
    return low, math.sqrt(low * high) if told["logarithmic"] else (low + high) / 2, high


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
