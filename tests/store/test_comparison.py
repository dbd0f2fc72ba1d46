from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.store.comparison import config_changes
from tunesmith.store.open import open_store
from tunesmith.store.rows import ConfigChange
from tunesmith.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "tunesmith.db")
    for content in ("a", "b"):
        store.record_data_version(content * 64, 100, {"train": f"{content}.csv"})
    return store


def make(store: Store, name: str, data: str, *measured: tuple[str, float, float | None, dict[str, Any]]) -> None:
    run = store.start_run(name, "train", {"output_dir": name, "method": {"name": name}}, data * 64, name)
    for metric, value, width, setting in measured:
        low, high = (None, None) if width is None else (value - width, value + width)
        store.record_evaluation(run, "test", metric, value, low, high, 100, setting)
    store.finish_run(run)


def test_config_changes_are_dotted_and_leave_out_the_folder() -> None:
    first = {"model": "a", "method": {"name": "lora", "r": 8}, "labels": ["x"], "output_dir": "runs/1", "columns": {}}
    second = {"model": "a", "method": {"name": "bitfit"}, "labels": ["x", "y"], "output_dir": "runs/2", "seed": 0}
    assert list(config_changes(first, second)) == [
        ConfigChange("method.name", "lora", "bitfit"),
        ConfigChange("method.r", 8, None),
        ConfigChange("labels", ["x"], ["x", "y"]),
        ConfigChange("columns", {}, None),
        ConfigChange("seed", None, 0),
    ]


def test_runs_are_compared_by_config_data_and_metrics(store: Store) -> None:
    make(store, "lora", "a", ("accuracy", 0.80, 0.02, {}), ("f1", 0.7, 0.1, {}), ("loss", 0.5, None, {}))
    make(store, "bitfit", "b", ("accuracy", 0.90, 0.02, {}), ("f1", 0.8, 0.1, {}), ("loss", 0.4, None, {}))
    told = store.compare("lora", "bitfit")
    assert told.config == (ConfigChange("method.name", "lora", "bitfit"),)
    assert told.data is not None
    assert [version.spec["train"] for version in told.data if version] == ["a.csv", "b.csv"]
    accuracy, f1, loss = told.metrics
    # 0.82 < 0.88: the intervals do not meet; 0.6..0.8 and 0.7..0.9 do.
    assert (round(accuracy.difference or 0, 9), accuracy.apart) == (0.1, True)
    assert (round(f1.difference or 0, 9), f1.apart) == (0.1, False)
    assert (round(loss.difference or 0, 9), loss.apart) == (-0.1, None)
    assert store.compare("bitfit", "lora").metrics[0].apart is True


def test_the_same_data_is_no_difference(store: Store) -> None:
    make(store, "one", "a")
    make(store, "two", "a")
    assert store.compare("one", "two").data is None


def test_measurements_are_paired_by_setting_then_alone_then_not_at_all(store: Store) -> None:
    make(
        store,
        "one",
        "a",
        ("accuracy", 0.1, 0, {"rung": "lora"}),
        ("accuracy", 0.2, 0, {"rung": "full"}),
        ("f1", 0.3, 0, {}),
    )
    make(store, "two", "a", ("accuracy", 0.5, 0, {"rung": "full"}), ("accuracy", 0.6, 0, {"rung": "bitfit"}))
    pairs = [
        (change.metric, change.first and change.first.value, change.second and change.second.value)
        for change in store.compare("one", "two").metrics
    ]
    assert pairs == [("accuracy", 0.2, 0.5), ("accuracy", 0.1, 0.6), ("f1", 0.3, None)]


def test_several_settings_on_one_side_are_not_guessed_at(store: Store) -> None:
    make(store, "one", "a", ("accuracy", 0.1, 0, {"shots": 0}), ("accuracy", 0.2, 0, {"shots": 4}))
    make(store, "two", "a", ("accuracy", 0.5, 0, {"shots": 8}))
    metrics = store.compare("one", "two").metrics
    assert [change.difference for change in metrics] == [None, None, None]


def test_comparing_with_a_run_that_is_not_there_is_told(store: Store) -> None:
    make(store, "reviews", "a")
    with pytest.raises(Mistake, match="did you mean 'reviews'"):
        store.compare("reviews", "reviews2")
