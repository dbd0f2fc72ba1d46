"""A sweep's pictures: each trial where its values put it, the best on top, nothing where nothing is known."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from tunesmith.evaluation.search_plots import NARROW, WIDE, importance_bars, parallel


def _trial(number: int, rate: float, rank: int, loss: float | None, state: str = "finished") -> dict[str, Any]:
    values = {} if loss is None else {"quality": loss}
    params = {"learning_rate": rate, "method.r": rank}
    return {"number": number, "params": params, "values": values, "state": state, "chosen": number == 1}


def _sweep(*trials: dict[str, Any]) -> dict[str, Any]:
    search = [
        {"key": "learning_rate", "low": 1e-4, "high": 1e-2, "logarithmic": True},
        {"key": "method.r", "choices": [4, 8, 16], "logarithmic": False},
    ]
    return {"search": search, "objectives": ["quality"], "trials": trials}


def _lines(picture: str) -> list[tuple[str, list[tuple[float, float]]]]:
    found = re.findall(r'<polyline class="trial (\w+)" points="([^"]+)"', picture)
    return [(kind, [tuple(map(float, point.split(","))) for point in path.split()]) for kind, path in found]  # type: ignore[misc]


def test_a_line_goes_through_a_trials_values() -> None:
    drawn = _lines(parallel(_sweep(_trial(0, 1e-4, 4, 2.0, "pruned"), _trial(1, 1e-3, 16, 1.0)), WIDE))
    assert [kind for kind, _ in drawn] == ["pruned", "chosen"]  # the best is drawn last, over the others
    top, bottom = WIDE.top, WIDE.height - WIDE.bottom
    (_, worst), (_, best) = drawn
    assert [y for _, y in worst][:2] == [bottom, bottom]  # the lowest rate, the first choice
    assert best[0][1] == round((top + bottom) / 2, 1)  # half way by its logarithm
    assert best[1][1] == top
    assert best[2][1] < worst[2][1]  # a lower loss is drawn higher
    assert [x for x, _ in best] == [x for x, _ in worst] == [70, 480, 890]


def test_trials_without_a_measurement_are_not_drawn() -> None:
    assert len(_lines(parallel(_sweep(*(_trial(n, 1e-3, 4, None if n == 2 else 1.0 + n) for n in range(4)))))) == 3
    assert parallel(_sweep(_trial(0, 1e-3, 4, 1.0))) == ""


def test_pictures_are_whole_and_say_what_they_show() -> None:
    sweep = _sweep(_trial(0, 1e-4, 4, 2.0), _trial(1, 1e-3, 16, 1.0))
    for picture in (parallel(sweep, WIDE), parallel(sweep, NARROW), importance_bars({"a<b": 0.75, "r": 0.25})):
        spoken = ElementTree.fromstring(picture).attrib["aria-label"]
        assert "learning_rate" in spoken or "a<b 75%, r 25%" in spoken


def test_bars_are_as_long_as_the_shares() -> None:
    drawn = importance_bars({"a": 0.8, "b": 0.2})
    widths = [float(width) for width in re.findall(r'class="share"[^>]* width="([\d.]+)"', drawn)]
    assert math.isclose(widths[0], 4 * widths[1], rel_tol=0.01)
    assert importance_bars({}) == ""
