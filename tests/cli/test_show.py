from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy
import pytest

from tunesmith.cli import _show
from tunesmith.store.rows import ConfigChange


def test_json_is_one_value_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        "change": ConfigChange("method.r", 8, None),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "where": Path("runs/x"),
        "loss": math.nan,
        "scores": numpy.array([0.5, numpy.inf]),
        "count": numpy.int64(3),
        "labels": ("ja", "größer"),
        "names": {"b", "a"},
    }
    with _show.mode(True):
        _show.show(value, lambda: pytest.fail("this is for people"))
    assert json.loads(capsys.readouterr().out) == {
        "change": {"key": "method.r", "first": 8, "second": None},
        "when": "2026-01-02T00:00:00+00:00",
        "where": "runs/x",
        "loss": None,
        "scores": [0.5, None],
        "count": 3,
        "labels": ["ja", "größer"],
        "names": ["a", "b"],
    }


def test_what_json_cannot_say_is_a_bug() -> None:
    with _show.mode(True), pytest.raises(TypeError, match="object cannot be shown"):
        _show.show(object(), lambda: None)


def test_a_piped_table_cuts_no_cell(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-run-with-a-very-long-name-" * 6 + "[end]"
    _show.table(("run", "rows"), [(name, 12345), ("b", None)], "Runs")
    shown = capsys.readouterr().out
    assert name in shown
    assert "12,345" in shown
    assert max(map(len, shown.splitlines())) < 200


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (0.123456, "0.1235"),
        (123456.7, "123,457"),
        (10000, "10,000"),
        ("x", "x"),
        (math.nan, "–"),
    ],
)
def test_cells(value: object, shown: str) -> None:
    assert _show.cell(value) == shown


def test_measurements_as_people_say_them() -> None:
    assert _show.interval(0.8341, 0.802, 0.866) == "0.834 [0.802, 0.866]"
    assert _show.interval(0.5, None, None) == "0.5"
    assert _show.interval(None, None, None) == "–"
