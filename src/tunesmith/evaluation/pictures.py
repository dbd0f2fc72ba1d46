"""The pictures of a climb: its rungs against what they cost and what they forgot, and their intervals as bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunesmith.core import rooms
from tunesmith.evaluation import amounts, plots
from tunesmith.evaluation.amounts import is_number
from tunesmith.evaluation.scales import Axis, memory_axis, time_axis

_KL = Axis("mean KL from the base model, nats a token", amounts.quality)
FRAMES = (plots.WIDE, plots.NARROW)
# The costs a person may weigh quality against: the rung's field and its axis.
_COSTS = (
    ("seconds", time_axis("time to make", amounts.duration)),
    ("seconds_per_query", time_axis("time a query", amounts.duration)),
    ("peak_memory_mb", memory_axis("peak memory", amounts.memory)),
)


def against_cost(climb: Mapping[str, Any], finished: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Quality against each cost: its name, pictures for wide and narrow pages, and the names on the front."""
    pictures = []
    for field, axis in _COSTS:
        points = [_point(rung, field) for rung in finished if is_number(rung[field]) and rung[field] > 0]
        if points:
            best = [point.name for point in plots.front(points, _higher_is_better(climb))]
            drawn = _scatters(climb, points, axis, climb.get("target"))
            pictures.append({"label": axis.label, "pictures": drawn, "front": best})
    return pictures


def against_forgetting(climb: Mapping[str, Any], finished: Iterable[Mapping[str, Any]]) -> list[str]:
    """Quality against forgetting, when at least one rung has changed the model."""
    points = [_point(rung, "forgetting_kl") for rung in finished if is_number(rung["forgetting_kl"])]
    if not any(point.at > 0 for point in points):
        return []
    return _scatters(climb, points, _KL, bound=climb.get("max_kl"))


def on_the_way(result: Mapping[str, Any]) -> list[str]:
    """Loss against forgetting at each validation of a run that had a gate; none of one that had not."""
    best, points = result.get("best_validation_loss"), []
    for one in result.get("curve") or ():
        if "forgetting_kl" in one and "validation" in one:
            loss = one["validation"]
            points.append(plots.Point(f"step {one['step']:g}", one["forgetting_kl"], loss, loss, loss, loss == best))
    up, bound = Axis("validation loss", amounts.quality), result.get("max_kl")
    return [plots.scatter(points, _KL, up, frame, False, bound=bound) for frame in FRAMES] if points else []


def importance(config: Mapping[str, Any]) -> list[str]:
    """How the importance of a model's weights lies over its layers, where a method ranked them; [] elsewhere.

    Layers of which something is trained stand out.
    """
    ranked, rows = config.get("importance") or {}, config.get("rows") or {}
    trained = {place for place in ranked if any(f"{path}.".startswith(f"{place}.") for path in rows)}
    up = Axis("share of the importance", amounts.quality)
    drawn = (plots.bars(ranked, trained, "layer, 0 is nearest to the input", up, frame) for frame in FRAMES)
    return [picture for picture in drawn if picture]


def lay_bars(finished: Sequence[dict[str, Any]]) -> None:
    """Give each rung its interval as percentages of the range that all of them take, for the bars in the table."""
    points = [_point(rung, "value") for rung in finished]
    if not points:
        return
    lowest = min(point.low for point in points)
    span = (max(point.high for point in points) - lowest) or 1.0
    for rung, point in zip(finished, points, strict=True):
        start, at, end = (round(100 * (x - lowest) / span, 2) for x in (point.low, point.value, point.high))
        rung["bar"] = {"low": start, "width": round(end - start, 2), "at": at}


def _point(rung: Mapping[str, Any], field: str) -> plots.Point:
    low, high = (rung[end] if is_number(rung[end]) else rung["value"] for end in ("low", "high"))
    return plots.Point(rung["name"], rung[field], rung["value"], low, high, rung["chosen"])


def _scatters(
    climb: Mapping[str, Any],
    points: Sequence[plots.Point],
    across: Axis,
    target: float | None = None,
    bound: float | None = None,
) -> list[str]:
    up = Axis(amounts.words(climb.get("metric")), amounts.quality)
    return [plots.scatter(points, across, up, frame, _higher_is_better(climb), target, bound) for frame in FRAMES]


def _higher_is_better(climb: Mapping[str, Any]) -> bool:
    metric = str(climb.get("metric"))
    return metric not in rooms.names("metrics") or rooms.choice("metrics", metric).BETTER == "higher"
