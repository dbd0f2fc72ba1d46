from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith
from tunesmith.core.errors import Mistake
from tunesmith.metrics._measure import Measurement
from tunesmith.recipes._record import recorded
from tunesmith.recipes._work import read_examples
from tunesmith.store.open import open_store

ToyTask = Callable[..., dict[str, Any]]
Begin = Callable[..., Any]


@pytest.fixture
def begin(toy_task: ToyTask) -> Begin:
    """Begin a run of the toy task: ``with begin("runs/a", "train", seed=3) as record``."""

    def make(folder: str, kind: str = "train", **keys: Any) -> Any:
        project, examples = read_examples(tunesmith.load(toy_task(output_dir=folder, **keys)))
        Path(folder).mkdir(parents=True, exist_ok=True)
        return recorded(project, kind, Path(folder), examples)

    return make


def leave(folder: str, name: str = "artifact") -> None:
    Path(folder, name).mkdir(parents=True)
    Path(folder, name, "weights").write_bytes(b"1234")


def test_a_run_is_in_the_store_with_how_it_ended(begin: Begin) -> None:
    measured = Measurement("accuracy", 0.8, 0.7, 0.9, 50)
    with begin("runs/a") as record:
        leave("runs/a")
        record.measured("test", {"accuracy": measured}, {"rung": "lora"})
        record.left("lora", Path("runs/a/artifact"), "toy")
        record.peak_memory_mb = 321.0
        assert open_store().run("a").status == "running"
    run = open_store().run("a")
    assert (run.status, run.kind, run.peak_memory_mb) == ("finished", "train", 321.0)
    assert run.config["method"]["r"] == 8
    assert [(one.value, one.setting) for one in run.evaluations] == [(0.8, {"rung": "lora"})]
    assert [(one.bytes, one.sha256) for one in run.artifacts] == [(4, hashlib.sha256(b"weights1234").hexdigest())]
    assert open_store().data_version(str(run.data_version)).rows == 256
    assert yaml.safe_load(Path("runs/a/config.yaml").read_text())["output_dir"] == "runs/a"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), "interrupted", "ctrl-C"),
        (Mistake("no room"), "failed", "no room"),
        (RuntimeError("bug"), "failed", "bug"),
    ],
)
def test_a_run_that_ends_otherwise_says_so(begin: Begin, error: BaseException, status: str, message: str) -> None:
    with pytest.raises(type(error)), begin("runs/a"):
        raise error
    run = open_store().run("a")
    assert (run.status, run.message) == (status, message)


def test_runs_in_folders_of_the_same_name_are_two_runs(begin: Begin) -> None:
    for folder, kind in (("here/lora", "train"), ("there/lora", "climb"), ("here/lora", "train")):
        with begin(folder, kind):
            pass
    assert {(run.name, run.kind, run.folder) for run in open_store().runs()} == {
        ("lora", "train", "here/lora"),
        ("there/lora", "climb", "there/lora"),
    }


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"seed": 1}, r"other seed"),
        ({"seed": 1, "learning_rate": 0.5}, "other learning_rate, seed"),
        ({"task": {"name": "classification", "labels": ["negative", "positive"]}}, "other task"),
        ({"kind": "climb"}, "other kind of run"),
    ],
)
def test_a_folder_that_holds_another_run_is_refused(begin: Begin, keys: dict[str, Any], told: str) -> None:
    with begin("runs/a"):
        leave("runs/a")
    kept = Path("runs/a/config.yaml").read_bytes()
    with (
        pytest.raises(Mistake, match=rf"^runs/a: holds another run \({told}\); choose another"),
        begin("runs/a", **keys),
    ):
        pass
    assert Path("runs/a/config.yaml").read_bytes() == kept
    assert open_store().run("a").status == "finished"


@pytest.mark.parametrize("keys", [{"budget": {"minutes": 3}}, {"target": 0.9}, {"rungs": ["lora"]}, {}], ids=str)
def test_more_time_another_target_and_more_rungs_are_the_same_run(begin: Begin, keys: dict[str, Any]) -> None:
    with begin("runs/a"):
        leave("runs/a")
    with begin("runs/a", **keys):
        pass


def test_other_rows_or_splits_are_another_run(begin: Begin, reviews: Path) -> None:
    with begin("runs/a"):
        leave("runs/a")
    Path("more.jsonl").write_text(reviews.read_text() + '{"text": "new", "label": "positive"}\n')
    data = {"train": "more.jsonl", "validation": 0.2, "test": 0.2}
    with pytest.raises(Mistake, match=r"\(other data\)"), begin("runs/a", data=data):
        pass
    data = {"train": str(reviews), "validation": 0.1, "test": 0.2}
    with pytest.raises(Mistake, match=r"\(other data\)"), begin("runs/a", data=data):
        pass


def test_a_folder_in_which_nothing_is_left_is_free(begin: Begin) -> None:
    with pytest.raises(Mistake, match="too big"), begin("runs/a"):
        raise Mistake("too big")
    with begin("runs/a", max_length=64):
        pass
    assert yaml.safe_load(Path("runs/a/config.yaml").read_text())["max_length"] == 64


def test_two_processes_are_not_in_one_folder(begin: Begin) -> None:
    with begin("runs/a"), pytest.raises(Mistake, match="runs/a: in use by another process"), begin("runs/a"):
        pass


def test_a_model_that_is_not_there_leaves_no_run_behind(begin: Begin) -> None:
    with pytest.raises(Mistake, match="no-such"), begin("runs/a", model="no-such"):
        pass
    assert open_store().runs() == []
