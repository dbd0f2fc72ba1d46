from __future__ import annotations

import math

import pytest

from tunesmith.evaluation import amounts


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.00042, "0.42 ms"),
        (0.0042, "4.2 ms"),
        (0.0417, "42 ms"),
        (0.17, "0.17 s"),
        (0, "0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (318, "5 min 18 s"),
        (3_599.7, "1 h"),
        (4_020, "1 h 7 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, written: str) -> None:
    assert amounts.duration(seconds) == written


@pytest.mark.parametrize(
    ("number_of_bytes", "written"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (46_080, "46 kB"),
        (3_700_000, "3.7 MB"),
        (999_900_000, "1.0 GB"),
        (19_600_000, "20 MB"),
    ],
)
def test_sizes(number_of_bytes: float, written: str) -> None:
    assert amounts.size(number_of_bytes) == written


def test_counts_are_exact_up_to_a_million() -> None:
    assert amounts.count(921_600) == "921,600"
    assert amounts.count(1_224_000) == "1.2 M"
    assert amounts.count(134_515_008) == "135 M"
    assert amounts.count(41.25) == "41.2"


def test_qualities_keep_what_tells_two_rungs_apart() -> None:
    assert [amounts.quality(value) for value in (0.8344, 41.274, 1204.4, -0.02)] == [
        "0.834",
        "41.27",
        "1,204",
        "−0.020",
    ]
    assert amounts.difference(0.2134) == "+0.213"
    assert amounts.difference(-0.02) == "−0.020"
    assert amounts.interval(0.8, 0.9) == "0.800 to 0.900"


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_what_is_not_an_amount_is_a_dash(unknown: float | None) -> None:
    for write in (amounts.duration, amounts.memory, amounts.size, amounts.count, amounts.quality, amounts.difference):
        assert write(unknown) == amounts.NONE
    assert amounts.interval(unknown, 0.9) == ""
