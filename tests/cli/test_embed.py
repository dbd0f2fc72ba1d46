"""embed as typed, on a toy encoder: where texts come from, what people see, what `--json` gives, what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy
import pytest

from tunesmith.cli._main import main

TEXTS = ["the film was wonderful", "the plot was dull", "what is the capital of France?"]


@pytest.fixture
def line(tmp_path: Path, toy_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The beginning of every line typed, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return ["embed", "--model", str(toy_encoder_folder), "--precision", "float32"]


def test_people_see_how_near_and_what_it_cost(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line, *TEXTS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main([*line, *TEXTS]) == 0
    shown = capsys.readouterr().out
    for text, cosines in zip(TEXTS, told["cosine_similarities"], strict=True):
        [row] = [row for row in shown.splitlines() if text in row]
        assert all(f"{cosine:.3f}".replace("-", "−") in row for cosine in cosines)
    assert "3 of 32 numbers" in shown
    assert "mean of the last layer, length 1" in shown
    assert "a text" in shown
    assert "cut" not in shown
    assert numpy.array(told["vectors"]).shape == (3, 32)


def test_texts_come_from_the_line_a_file_or_stdin(
    line: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("texts.txt").write_text("\n".join(TEXTS) + "\n")
    Path("rows.jsonl").write_text("".join(json.dumps({"id": 1, "said": text}) + "\n" for text in TEXTS))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS)))
    found = []
    for more in (TEXTS, ["--file", "texts.txt"], ["--file", "rows.jsonl", "--column", "said"], []):
        assert main([*line, *more, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["vectors"])
    assert found[0] == found[1] == found[2] == found[3]


def test_a_file_takes_the_vectors_and_json_leaves_them_out(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line, *TEXTS, "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)["vectors"]
    assert main([*line, *TEXTS, "--output", "out/vectors.npy", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "vectors" not in told
    assert told["output"] == "out/vectors.npy"
    numpy.testing.assert_allclose(numpy.load("out/vectors.npy"), wanted, rtol=0, atol=1e-7)
    assert main([*line, TEXTS[0], "--output", "out/vectors.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "out/vectors.jsonl" in shown
    assert "cosine" not in shown


def test_options_reach_the_vectors(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    long = "the film was great " * 200
    assert main([*line, long, "dull", "--pooling", "first", "--layer", "1", "--no-normalize", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pooling"], told["layer"], told["normalize"], told["cut"]) == ("first", 1, False, 1)
    assert abs(numpy.linalg.norm(told["vectors"][0]) - 1) > 0.1
    assert main([*line, long, "--layer", "1"]) == 0
    shown = capsys.readouterr().out
    assert "mean of layer 1" in shown
    assert "1 longer than 512 tokens" in shown


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["dull", "--file", "texts.txt"], "got texts and --file"),
        (["dull", "--column", "text"], "got --column without --file"),
        (["dull", ""], "text 2 of 2 is empty"),
        ([], "got no text"),
        (["--file", "none.txt"], "none.txt: no such file"),
        (["--file", "rows.jsonl", "--column", "sayd"], "no column 'sayd'"),
        (["dull", "--output", "vectors.csv"], "expected one of .npy, .safetensors, .jsonl"),
        (["dull", "--layer", "7"], "layer: got 7; expected 1 to 2"),
        (["dull", "--artifact", "runs/none"], "got --model and --artifact"),
        (["dull", "--pooling", "max"], "max"),
        (["dull", "caf\udcff"], "text 2 of 2 is not UTF-8"),
    ],
)
def test_a_mistake_ends_in_one_line(
    line: list[str], more: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows.jsonl").write_text('{"said": "dull"}\n')
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main([*line, *more]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_bytes_on_stdin_that_are_no_text_are_told(
    line: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xff"), encoding="utf-8"))
    assert main(line) == 2
    assert capsys.readouterr().err.startswith("tunesmith: stdin: byte 4 is not utf-8")
