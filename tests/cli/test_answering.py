"""evaluate, generate and chat as typed, on an untuned toy: what people see, and what `--json` gives."""

from __future__ import annotations

import io
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
    task = {"model": str(toy_folder), "task": "classification", "data": {"train": "rows.csv", "test": 0.3}}
    Path("task.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


def test_evaluate_shows_every_metric_with_its_interval(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "task.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["evaluate", "task.yaml"]) == 0
    shown = capsys.readouterr().out
    for one in told["metrics"].values():
        assert one["metric"] in shown
        assert f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" in shown
    assert told["caution"] in shown
    assert "tokens in a prompt" in shown


def test_evaluate_takes_shots_and_how_and_keys_of_the_task_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [
        "evaluate",
        "task.yaml",
        "--shots",
        "2",
        "--how",
        "similar",
        "--calibrate",
        "batch",
        "--split",
        "validation",
    ]
    assert main([*line, "--data.validation", "0.3", "--limit", "3", "--seed", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["setting"] == {"split": "validation", "shots": 2, "how": "similar", "calibrate": "batch"}
    assert told["n"] == 3


def test_evaluate_refuses_what_is_not_a_way(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "task.yaml", "--how", "smart"]) == 2
    assert "smart" in capsys.readouterr().err


def test_generate_answers_with_the_task_of_a_file_or_freely(
    project: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["generate", "--config", "task.yaml", "--json", "the film was great"]) == 0
    [answer] = json.loads(capsys.readouterr().out)
    assert answer["probabilities"].keys() == {"good", "bad"}
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n"))
    assert main(["generate", "--model", str(toy_folder), "--json"]) == 0
    assert [answer["input"] for answer in json.loads(capsys.readouterr().out)] == ["one", "two"]


def test_chat_ends_with_an_empty_line_and_with_the_end_of_input(
    project: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["chat", "--model", str(toy_folder), "--max-new-tokens", "4", "--temperature", "0"]
    for typed in ("hello\n\nnever read\n", "hello\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert main([*line, "--json"]) == 0
        heard = json.loads(capsys.readouterr().out)
        assert [turn["user"] for turn in heard] == ["hello"]
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert main(line) == 0
        assert capsys.readouterr().out.strip() == heard[0]["assistant"]
