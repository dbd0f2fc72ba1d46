from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.evaluation import amounts, plots
from tunesmith.evaluation.labels import Box, Label
from tunesmith.evaluation.plots import NARROW, SMALL, WIDE, Frame, Point, curve, front, scatter
from tunesmith.evaluation.scales import Axis, Scale, bounds, memory_axis, tick_texts, ticks, time_axis

SECONDS = time_axis("time to make", amounts.duration)
MEGABYTES = memory_axis("peak memory", amounts.memory)
ACCURACY = Axis("accuracy", amounts.quality)


def point(name: str, at: float, value: float, half: float = 0.03, chosen: bool = False) -> Point:
    return Point(name, at, value, value - half, value + half, chosen)


RUNGS = [point("zero_shot", 14, 0.62), point("few_shot", 96, 0.76), point("soft", 131, 0.70), point("lora", 318, 0.83)]


def test_the_front_is_what_nothing_cheaper_equals() -> None:
    assert [p.name for p in front(RUNGS)] == ["zero_shot", "few_shot", "lora"]
    assert [p.name for p in front(RUNGS, higher_is_better=False)] == ["zero_shot"]
    # At one price the better counts; at one quality the cheaper.
    tied = [point("a", 1, 0.5), point("b", 1, 0.6), point("c", 2, 0.6)]
    assert [p.name for p in front(tied)] == ["b"]


def circles(svg: str | ElementTree.Element) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(svg) if isinstance(svg, str) else svg
    return [(float(node.attrib["cx"]), float(node.attrib["cy"])) for node in root.iter("circle")]


def test_dots_stand_where_their_amounts_say() -> None:
    by_cost = sorted(circles(scatter(RUNGS, SECONDS, ACCURACY, WIDE)))
    heights = [height for _, height in by_cost]
    assert heights[3] < heights[1] < heights[2] < heights[0], "lora stands highest on the page, zero_shot lowest"
    # Equal ratios of cost are equal distances: 14 to 96 s against 96 to 318 s.
    (a, _), (b, _), _, (d, _) = by_cost
    assert (b - a) / (d - b) == pytest.approx(1.6076, abs=0.005)  # ln(96/14) / ln(318/96), pixels rounded to 0.1


def test_a_bound_stands_where_its_amount_says_and_is_in_sight() -> None:
    rungs = [point("soft", 0.1, 0.6), point("lora", 0.3, 0.8)]
    drawn = ElementTree.fromstring(scatter(rungs, Axis("KL", amounts.quality), ACCURACY, WIDE, bound=0.4))
    [line] = [node for node in drawn.iter("line") if node.attrib.get("class") == "target"]
    (soft, _), (lora, _) = sorted(circles(drawn))
    assert line.attrib["x1"] == line.attrib["x2"]
    assert float(line.attrib["x1"]) - lora == pytest.approx((lora - soft) / 2, abs=0.11)
    assert float(line.attrib["x1"]) < WIDE.width - WIDE.right
    assert "at most 0.400" in [node.text for node in drawn.iter("text")]


def test_up_is_better_for_a_loss_too() -> None:
    losses = [point("worse", 1, 3.0), point("better", 2, 2.0)]
    (_, worse), (_, better) = sorted(circles(scatter(losses, SECONDS, ACCURACY, WIDE, higher_is_better=False)))
    assert better < worse


amount = st.floats(1e-3, 1e6)
share = st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(amount, share, st.floats(0, 0.2)), min_size=1, max_size=8), st.sampled_from([WIDE, NARROW]))
def test_everything_drawn_lies_inside_the_picture(rungs: list[tuple[float, float, float]], frame: Frame) -> None:
    points = [point(f"rung {index}", *rung) for index, rung in enumerate(rungs)]
    svg = scatter(points, SECONDS, ACCURACY, frame, target=0.5)
    assert "nan" not in svg
    for across, down in circles(svg):
        assert frame.left - 0.1 <= across <= frame.width - frame.right + 0.1
        assert frame.top - 0.1 <= down <= frame.height - frame.bottom + 0.1


def label_box(name: ElementTree.Element) -> Box:
    anchor: Any = name.attrib["text-anchor"]
    return Label(name.text or "", float(name.attrib["x"]), float(name.attrib["y"]), anchor, strong=False).box


def test_names_do_not_cover_each_other_or_the_dots_or_their_intervals() -> None:
    crowded = [point(f"prompt_{index}", 100 + 4 * index, 0.70 + 0.004 * index, 0.01) for index in range(4)]
    crowded += [point("zero_shot", 10, 0.6), point("lora", 1000, 0.83)]
    root = ElementTree.fromstring(scatter(crowded, SECONDS, ACCURACY, WIDE))
    boxes = [label_box(node) for node in root.iter("text") if "name" in node.attrib["class"]]
    ends = [[float(node.attrib[at]) for at in ("x1", "y1", "x2", "y2")] for node in root.findall("g/line")]
    drawn = [Box.around(*line, 0.5) for line in ends] + [Box.around(x, y, x, y, 5) for x, y in circles(root)]
    assert len(boxes) == 6
    for index, box in enumerate(boxes):
        assert all(box.overlap(other) == 0 for other in boxes[index + 1 :] + drawn)


def test_names_are_escaped() -> None:
    svg = scatter([point("<b>&\"'", 1, 0.5)], Axis("<u>", amounts.count), Axis("<i>", amounts.quality), WIDE)
    ElementTree.fromstring(svg)
    assert not re.search("<[biu]>", svg)


def test_a_learning_curve_shows_both_losses_and_skips_what_is_not_a_number() -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0, "validation": 1.5}]
    svg = curve(rows, name="lora")
    assert len(circles(svg)) == 1
    assert "Learning curve of lora: training loss 2.000 to 1.000, validation loss 1.500 to 1.500." in svg
    assert len(re.findall("<polyline", svg)) == 1
    assert curve([]) == curve([{"step": 1, "loss": 2.0}]) == ""


def test_a_long_curve_stays_small_and_keeps_its_mean() -> None:
    rows = [{"step": step, "loss": 1.0 + (step % 2)} for step in range(1, 30_001)]
    svg = curve(rows, SMALL)
    assert len(svg) < 30_000
    raw = re.findall(r'class="loss raw" points="([^"]*)"', svg)[0].split()
    assert len(raw) <= plots.MOST_POINTS
    assert len({pair.split(",")[1] for pair in raw}) == 1, "each stretch holds as many high losses as low ones"


def test_the_smoothed_loss_is_not_shifted_along_the_run() -> None:
    falling = [{"step": step, "loss": 200.0 - step} for step in range(1, 101)]
    svg = curve(falling, SMALL)
    raw, smooth = ([float(pair.split(",")[1]) for pair in line.split()] for line in re.findall(r'points="(.*?)"', svg))
    assert smooth[10:-10] == pytest.approx(raw[10:-10], abs=0.11)  # pixels, each rounded to 0.1


def test_scales_reach_from_end_to_end() -> None:
    scale = Scale(1, 100, 50, 250, logarithmic=True)
    assert [scale(1), scale(10), scale(100)] == pytest.approx([50, 150, 250])
    assert Scale(0, 1, 300, 20)(0.25) == pytest.approx(230)


@given(st.lists(st.floats(1e-4, 1e7), min_size=1, max_size=6), st.booleans())
def test_bounds_hold_every_amount_and_ticks_lie_between_them(values: list[float], logarithmic: bool) -> None:
    low, high = bounds(values, logarithmic)
    assert low < min(values) <= max(values) < high
    axis = SECONDS if logarithmic else ACCURACY
    marks = ticks(axis, low, high)
    assert len(marks) <= 7
    slack = 1e-6 * (high - low)
    assert all(low - slack <= mark <= high + slack for mark in marks)


def test_ticks_are_round_and_told_apart() -> None:
    assert tick_texts(SECONDS, ticks(SECONDS, 10, 400)) == ["10 s", "20 s", "30 s", "1 min", "2 min", "5 min"]
    assert tick_texts(SECONDS, ticks(SECONDS, 0.01, 0.3)) == ["10 ms", "20 ms", "50 ms", "0.1 s", "0.2 s"]
    assert tick_texts(MEGABYTES, ticks(MEGABYTES, 700, 1700)) == ["800 MB", "1 GB", "1.2 GB", "1.4 GB", "1.6 GB"]
    assert tick_texts(ACCURACY, ticks(ACCURACY, 0.55, 0.88, 5)) == ["0.6", "0.7", "0.8"]
    assert tick_texts(ACCURACY, ticks(ACCURACY, 0.83, 0.84, 5)) == [
        "0.830",
        "0.832",
        "0.834",
        "0.836",
        "0.838",
        "0.840",
    ]


def test_bars_stand_in_their_order_and_as_high_as_they_say() -> None:
    amounts = {"layers.0": 0.1, "layers.1": 0.4, "<b>": 0.2}
    drawn = plots.bars(amounts, {"layers.1"}, "layer", Axis("share", lambda share: f"{share:.0%}"))
    bars = re.findall(r'<rect class="([a-z ]+)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)">', drawn)
    assert [kind for kind, *_ in bars] == ["amount", "amount strong", "amount"]
    assert [float(x) for _, x, *_ in bars] == sorted(float(x) for _, x, *_ in bars)
    heights = [float(height) for *_, height in bars]
    assert heights == pytest.approx([heights[1] / 4, heights[1], heights[1] / 2], abs=0.1)
    assert "layers.1: 40%" in drawn
    assert "&lt;b&gt;: 20%" in drawn
    assert "share against layer. layers.0 10%; layers.1 40%" in drawn


def test_many_bars_are_numbered_as_far_as_there_is_room() -> None:
    drawn = plots.bars({f"layers.{n}": 1.0 for n in range(60)}, (), "layer", Axis("share", str))
    numbers = [int(n) for n in re.findall(r'text-anchor="middle">(\d+)</text>', drawn)]
    assert len(re.findall("<rect", drawn)) == 60
    assert numbers == list(range(0, 60, numbers[1]))
    assert 8 <= len(numbers) <= 16


@pytest.mark.parametrize("amounts", [{}, {"layers.0": 0.0}])
def test_no_amounts_are_no_bars(amounts: dict[str, float]) -> None:
    assert plots.bars(amounts, (), "layer", Axis("share", str)) == ""
