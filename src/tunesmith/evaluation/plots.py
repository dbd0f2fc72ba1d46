"""The pictures of a report, as inline SVG: crisp at any size, readable by a screen reader, coloured by the page's CSS.

Only places are computed here; colours, weights and fonts are classes, so that the same picture serves a light page, a
dark page and paper. All text that comes from outside is escaped.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tunesmith.evaluation import amounts
from tunesmith.evaluation.labels import Box, Label, place
from tunesmith.evaluation.scales import Axis, Scale, bounds, tick_texts, ticks

MOST_POINTS = 300
_SMOOTH_FROM = 40


@dataclass(frozen=True, slots=True)
class Point:
    """A rung in a picture: where it stands, its 95 % interval, and whether it was chosen."""

    name: str
    at: float
    value: float
    low: float
    high: float
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The outer size of a picture and the margins its axes need, in pixels."""

    width: int
    height: int
    left: int = 58
    right: int = 20
    top: int = 34
    bottom: int = 50


WIDE, NARROW, SMALL = Frame(960, 400), Frame(400, 340, right=14), Frame(460, 240, left=48, bottom=42)


def front(points: Iterable[Point], higher_is_better: bool = True) -> list[Point]:
    """The Pareto front, cheapest first: the points that nothing as cheap or cheaper equals or beats."""
    best: list[Point] = []
    sign = 1 if higher_is_better else -1
    for point in sorted(points, key=lambda point: (point.at, -sign * point.value)):
        if not best or sign * point.value > sign * best[-1].value:
            best.append(point)
    return best


def scatter(
    points: Sequence[Point],
    across: Axis,
    up: Axis,
    frame: Frame,
    higher_is_better: bool = True,
    target: float | None = None,
    bound: float | None = None,
) -> str:
    """Rungs as dots with their intervals, the Pareto front as stairs. Up is always better: a loss grows downward.

    `target` is a height to be reached, `bound` a place across that is not to be passed.

    Returns an `<svg>` element, or "" when there is nothing to draw.
    """
    if not points:
        return ""
    x = Scale(
        *bounds([*(p.at for p in points), *([] if bound is None else [bound])], across.logarithmic),
        frame.left,
        frame.width - frame.right,
        across.logarithmic,
    )
    heights = [height for p in points for height in (p.low, p.high)] + ([] if target is None else [target])
    low, high = bounds(heights)
    bottom, top = frame.height - frame.bottom, frame.top
    y = Scale(low, high, *((bottom, top) if higher_is_better else (top, bottom)))
    best = front(points, higher_is_better)
    stairs = _corners(best, x, y, frame)
    parts = [
        _grid(x, y, across, up, frame),
        _stairs(stairs, frame),
        "" if target is None else _target(target, y, up, frame),
        "" if bound is None else _bound(bound, x, across, frame),
        *(_dot(p, p in best, x, y, across, up) for p in sorted(points, key=lambda p: p.chosen)),
        *(_name(label) for label in _names(points, stairs, x, y, frame)),
    ]
    said = "; ".join(f"{p.name}: {_spoken(p, across, up)}" for p in sorted(points, key=lambda p: p.at))
    return svg(parts, frame, f"{up.label} against {across.label}. {said}.")


def curve(rows: Sequence[Mapping[str, Any]], frame: Frame = SMALL, name: str = "") -> str:
    """The training loss of a run, step by step, with its validation loss where it was measured.

    `rows` are ``{"step", "loss", "validation"?}``. A long, noisy training loss is drawn pale, its running mean over it.
    Returns an `<svg>` element, or "" when fewer than two losses are known.
    """
    loss = _series(rows, "loss")
    validation = _series(rows, "validation")
    if len(loss) + len(validation) < 2:
        return ""
    across, up = Axis("step", amounts.count), Axis("loss", amounts.quality)
    x = Scale(*_span([step for step, _ in loss + validation]), frame.left, frame.width - frame.right)
    y = Scale(*bounds([value for _, value in loss + validation]), frame.height - frame.bottom, frame.top)
    smooth = len(loss) >= _SMOOTH_FROM
    parts = [
        _grid(x, y, across, up, frame),
        _line(loss, x, y, "loss raw" if smooth else "loss"),
        _line(_running_mean(loss), x, y, "loss") if smooth else "",
        _line(validation, x, y, "validation"),
        *(f'<circle class="validation" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3.2"/>' for s, v in validation),
    ]
    said = [
        f"{label} {amounts.quality(s[0][1])} to {amounts.quality(s[-1][1])}"
        for label, s in (("training loss", loss), ("validation loss", validation))
        if s
    ]
    return svg(parts, frame, f"Learning curve{' of ' + name if name else ''}: {', '.join(said)}.")


def bars(amounts_of: Mapping[str, float], strong: Collection[str], across: str, up: Axis, frame: Frame = SMALL) -> str:
    """Amounts as bars side by side, numbered from 0 in the order given; those named in `strong` stand out.

    Returns an `<svg>` element, or "" when there is nothing to draw.
    """
    if not amounts_of or not any(amounts_of.values()):
        return ""
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    y = Scale(0.0, bounds(amounts_of.values())[1], bottom, frame.top)
    step = (right - frame.left) / len(amounts_of)
    every = -(-len(amounts_of) * 26 // (right - frame.left))  # a number takes 26 pixels
    parts = [_levels(y, up, frame), _labels(across, up.label, frame)]
    for number, (name, amount) in enumerate(amounts_of.items()):
        left, kind = frame.left + (number + 0.12) * step, "amount strong" if name in strong else "amount"
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{y(amount):.1f}" width="{0.76 * step:.1f}" '
            f'height="{bottom - y(amount):.1f}"><title>{escape(name)}: {up.written(amount)}</title></rect>'
        )
        if number % every == 0:
            middle = left + 0.38 * step
            parts.append(f'<text class="tick" x="{middle:.1f}" y="{bottom + 19}" text-anchor="middle">{number}</text>')
    said = "; ".join(f"{name} {up.written(amount)}" for name, amount in amounts_of.items())
    return svg(parts, frame, f"{up.label} against {across}. {said}.")


def svg(parts: Iterable[str], frame: Frame, spoken: str) -> str:
    """The parts of a picture as one, with what a screen reader says of it."""
    return (
        f'<svg class="plot" viewBox="0 0 {frame.width} {frame.height}" width="{frame.width}" height="{frame.height}" '
        f'role="img" aria-label="{escape(spoken)}">{"".join(parts)}</svg>'
    )


def _grid(x: Scale, y: Scale, across: Axis, up: Axis, frame: Frame) -> str:
    bottom, parts = frame.height - frame.bottom, [_levels(y, up, frame)]
    breadths = ticks(across, x.low, x.high, max(3, frame.width // 110))
    for amount, written in zip(breadths, tick_texts(across, breadths), strict=True):
        at = x(amount)
        parts.append(f'<line class="tickmark" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 19}" text-anchor="middle">{written}</text>')
    better = "" if y.start > y.end else " (lower is better, drawn higher)"
    return "".join([*parts, _labels(across.label, up.label + better, frame)])


def _levels(y: Scale, up: Axis, frame: Frame) -> str:
    """The levels of a picture with their amounts, and its base line."""
    bottom, right, parts = frame.height - frame.bottom, frame.width - frame.right, []
    heights = ticks(up, y.low, y.high, 5)
    for amount, written in zip(heights, tick_texts(up, heights), strict=True):
        at = y(amount)
        parts.append(f'<line class="grid" x1="{frame.left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{frame.left - 8}" y="{at + 4:.1f}" text-anchor="end">{written}</text>')
    parts.append(f'<line class="axis" x1="{frame.left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    return "".join(parts)


def _labels(across: str, up: str, frame: Frame) -> str:
    middle, lower = (frame.left + frame.width - frame.right) / 2, frame.height - 8
    return (
        f'<text class="label" x="{middle:.0f}" y="{lower}" text-anchor="middle">{escape(across)}</text>'
        f'<text class="label" x="8" y="14">{escape(up)}</text>'
    )


def _corners(best: Sequence[Point], x: Scale, y: Scale, frame: Frame) -> list[tuple[float, float]]:
    """The front as stairs: from each of its rungs level to the next one's cost, then up; level to the right edge."""
    corners = [(x(best[0].at), y(best[0].value))]
    for point in best[1:]:
        corners += [(x(point.at), corners[-1][1]), (x(point.at), y(point.value))]
    return [*corners, (frame.width - frame.right, corners[-1][1])]


def _stairs(corners: Sequence[tuple[float, float]], frame: Frame) -> str:
    """The front's line; what lies under it is dominated."""
    line = "L".join(f"{across:.1f} {down:.1f}" for across, down in corners)
    under = f"V{frame.height - frame.bottom}H{corners[0][0]:.1f}Z"
    return f'<path class="dominated" d="M{line}{under}"/><path class="front" d="M{line}"/>'


def _target(target: float, y: Scale, up: Axis, frame: Frame) -> str:
    at, right = y(target), frame.width - frame.right
    return (
        f'<line class="target" x1="{frame.left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="target" x="{frame.left + 6}" y="{at - 6:.1f}">target {up.written(target)}</text>'
    )


def _bound(bound: float, x: Scale, across: Axis, frame: Frame) -> str:
    at, bottom = x(bound), frame.height - frame.bottom
    return (
        f'<line class="target" x1="{at:.1f}" x2="{at:.1f}" y1="{frame.top}" y2="{bottom}"/>'
        f'<text class="target" x="{at + 6:.1f}" y="{bottom - 6}">at most {across.written(bound)}</text>'
    )


def _dot(point: Point, on_front: bool, x: Scale, y: Scale, across: Axis, up: Axis) -> str:
    at, low, high = x(point.at), y(point.low), y(point.high)
    kind = "chosen" if point.chosen else "best" if on_front else "beaten"
    caps = "".join(f'<line x1="{at - 4:.1f}" x2="{at + 4:.1f}" y1="{end:.1f}" y2="{end:.1f}"/>' for end in (low, high))
    return (
        f'<g class="rung {kind}"><title>{escape(point.name)}: {escape(_spoken(point, across, up))}</title>'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>{caps}'
        f'<circle cx="{at:.1f}" cy="{y(point.value):.1f}" r="{7 if point.chosen else 5.5}"/></g>'
    )


def _spoken(point: Point, across: Axis, up: Axis) -> str:
    chosen = ", chosen" if point.chosen else ""
    return (
        f"{up.label} {up.written(point.value)} ({up.written(point.low)} to {up.written(point.high)}), "
        f"{across.label} {across.written(point.at)}{chosen}"
    )


def _names(
    points: Sequence[Point], stairs: Sequence[tuple[float, float]], x: Scale, y: Scale, frame: Frame
) -> list[Label]:
    """Where each rung's name goes, clear of dots, intervals, stairs and each other as far as there is room."""
    taken = [Box.around(x(p.at), y(p.low), x(p.at), y(p.high), 8) for p in points]
    taken += [Box.around(*start, *end, 2) for start, end in itertools.pairwise(stairs)]
    inside = Box(frame.left, 2, frame.width - 2, frame.height - frame.bottom)
    first_the_chosen = sorted(points, key=lambda p: not p.chosen)
    return place([(p.name, x(p.at), y(p.value), p.chosen) for p in first_the_chosen], taken, inside)


def _name(label: Label) -> str:
    kind = "name chosen" if label.strong else "name"
    where = f'x="{label.x:.1f}" y="{label.y:.1f}" text-anchor="{label.anchor}"'
    return f'<text class="{kind}" {where}>{escape(label.text)}</text>'


def _series(rows: Iterable[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in rows if amounts.is_number(row.get(key))]


def _span(steps: Sequence[float]) -> tuple[float, float]:
    low, high = min(steps), max(steps)
    return (low, high) if high > low else bounds(steps)


def _line(series: Sequence[tuple[float, float]], x: Scale, y: Scale, kind: str) -> str:
    if len(series) < 2:
        return ""
    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in _shortened(series))
    return f'<polyline class="{kind}" points="{path}"/>'


def _shortened(series: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points: the mean of each stretch, since more cannot be told apart on a screen."""
    stretch = -(-len(series) // MOST_POINTS)
    pieces = [series[start : start + stretch] for start in range(0, len(series), stretch)]
    return [(statistics.fmean(s for s, _ in piece), statistics.fmean(v for _, v in piece)) for piece in pieces]


def _running_mean(series: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each loss averaged with its neighbours, a twelfth of the run in all; at the ends with those there are."""
    sums = [0.0, *itertools.accumulate(value for _, value in series)]
    reach = max(1, len(series) // 24)
    ends = ((max(0, index - reach), min(len(series), index + reach + 1)) for index in range(len(series)))
    return [
        (step, (sums[end] - sums[start]) / (end - start)) for (step, _), (start, end) in zip(series, ends, strict=True)
    ]
