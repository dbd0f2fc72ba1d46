"""`tunesmith sweep` as typed: a table of trials, the best as a task file, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tunesmith.cli._main import main


@pytest.fixture
def project(tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task file and forty rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_STORE", raising=False)
    words = {"good": "great", "bad": "dull"}
    rows = [f"the film was {word} {number},{label}\n" for number in range(20) for label, word in words.items()]
    Path("rows.csv").write_text("text,label\n" + "".join(rows))
    task = {"model": str(toy_folder), "task": "classification", "data": {"train": "rows.csv"}, "max_steps": 2}
    task |= {"method": {"name": "lora", "r": 4}, "sweep": {"learning_rate": ["1e-4", "1e-2"]}, "output_dir": "runs/s"}
    Path("task.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


def test_it_shows_every_trial_and_what_to_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "task.yaml", "--trials", "2"]) == 0
    shown = capsys.readouterr().out
    assert "learning_rate" in shown
    assert "use it: tunesmith train runs/s/best.yaml" in shown
    assert main(["sweep", "task.yaml", "--trials", "2", "--json"]) == 0  # both are there: nothing is trained again
    told = json.loads(capsys.readouterr().out)
    assert [trial["number"] for trial in told["trials"]] == [0, 1]
    assert main(["train", "runs/s/best.yaml", "--no-evaluate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["learning_rate"] == told["best"]["params"]["learning_rate"]


def test_a_wrong_objective_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "task.yaml", "--objectives", "quality,speed"]) == 2
    assert "there is no 'speed'" in capsys.readouterr().err
