"""`tunesmith data check`: tables, bars, findings, and an exit code that scripts can trust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.cli import data
from tunesmith.cli._main import main

ADJECTIVES = ("warm", "clever", "dull", "loud", "quiet", "brave", "thin", "odd", "plain", "rich")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_folder: Path) -> Path:
    """A task file for reviews.csv in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("task.yaml").write_text(
        f"model: {toy_folder}\ntask: {{name: classification, labels: [bad, good]}}\n"
        "data: {train: reviews.csv, validation: 0.2, test: 0.2}\nmax_length: 256\n"
    )
    return tmp_path


def write(rows: int, more: str = "") -> None:
    lines = (
        f"the {ADJECTIVES[n % 10]} {ADJECTIVES[n // 10 % 10]} film of {n * 7919 % 9973} and {n * 104729 % 99991},"
        f"{('good', 'bad')[n % 2]}\n"
        for n in range(rows)
    )
    Path("reviews.csv").write_text("text,label\n" + "".join(lines) + more)


def test_a_report_for_people(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(200)
    assert main(["data", "check", "task.yaml"]) == 0
    shown = capsys.readouterr().out
    lines = [line.strip() for line in shown.splitlines()]
    assert "split        rows   shortest   median   95 %   longest   too long" in lines
    assert "tokens in a row" in lines
    assert any(line.startswith("good ") and line.endswith("%") for line in lines)
    assert "fine: every row can be read and none is empty" in lines
    assert any(line.startswith("caution: ") for line in lines)
    assert lines[-1].startswith("no problem, ")
    assert lines[-1].endswith("go on with `tunesmith climb`")


def test_problems_end_in_exit_code_2_and_cautions_do_not(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(200, ',good\n"Mixed, but…",neutral\n')
    assert main(["data", "check", "task.yaml"]) == 2
    shown = capsys.readouterr().out
    assert "problem: 1 row is empty where text is needed: reviews.csv:202\n    fill or remove them, or write" in shown
    assert "bad rows\n    reviews.csv:202: text: empty or missing; expected text\n" in shown
    assert "reviews.csv:203: label: label 'neutral' is not in the list (bad, good)" in shown
    assert shown.splitlines()[-1].startswith("2 problems to mend first, ")


def test_json_is_the_whole_report_and_nothing_else(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(200, ",good\n")
    assert main(["data", "check", "task.yaml", "--json"]) == 2
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert captured.err == ""
    assert sum(report["rows"].values()) == 200
    assert report["problems"]["first"][0]["source"] == "reviews.csv:202"
    assert report["findings"][0]["severity"] == "problem"
    assert report["lengths"]["train"]["unit"] == "tokens"


def test_keys_of_the_task_file_can_be_typed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(200)
    assert main(["data", "check", "task.yaml", "--max-length", "16", "--data.test", "0.3"]) == 0
    shown = capsys.readouterr().out
    assert "rows are longer than max_length (16)" in shown


def test_personal_data_are_counted_and_not_printed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(200, "write to anna.lee@example.org,good\n")
    assert main(["data", "check", "task.yaml"]) == 0
    captured = capsys.readouterr()
    assert "e-mail in 1 row" in captured.out
    assert "anna.lee" not in captured.out + captured.err


def test_bars_are_as_long_as_their_share_and_begin_where_rows_do() -> None:
    first = {"histogram": [(1, 16, 0), (17, 32, 10), (33, 64, 80)]}
    second = {"histogram": [(1, 16, 0), (17, 32, 10), (33, 64, 0), (65, 1024, 1)]}
    assert list(data._bars([first, second])) == [
        f"     17–32  {'#' * 10:<40}  20",
        f"     33–64  {'#' * 40:<40}  80",
        f"  65–1,024  {'#':<40}  1",
    ]


def test_many_labels_are_shown_by_frequency_and_the_rest_counted(capsys: pytest.CaptureFixture[str]) -> None:
    counted = {"train": {f"label{n}": n + 1 for n in range(25)}, "test": {"new": 500}}
    data._print_labels(counted)
    shown = capsys.readouterr().out.splitlines()
    rows = [line.split()[0] for line in shown if "%" in line]
    assert rows[:3] == ["new", "label24", "label23"]
    assert len(rows) == 20
    assert shown[-1] == "… and 6 more labels"
    assert [line.split()[1:] for line in shown if line.split()[:1] == ["label24"]] == [["25", "0", "7.7%"]]
