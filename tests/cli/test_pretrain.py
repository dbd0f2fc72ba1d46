"""`tunesmith pretrain`: what came of it, and what may be typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.cli._main import main
from tunesmith.models.shapes import Shape, shapes


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a corpus to be in, and a shape that is trained at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_STORE", raising=False)
    monkeypatch.setitem(shapes(), "toy", Shape("toy", 32, 2, 4, 2, 64, 128, 300, 0, 1e-2))
    texts = (f"The film number {number} was wonderful." for number in range(40))
    Path("corpus.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")


def test_it_says_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--shape", "toy", "--vocab-size", "270", "--max-steps", "2", "--data.validation", "0.2"]
    assert main(["pretrain", "corpus.txt", *words, "--output-dir", "runs/x"]) == 0
    out = capsys.readouterr().out
    assert "bits_per_byte" in out
    assert "at first, now" in out
    assert json.loads(Path("runs/x/artifact/config.json").read_text())["vocab_size"] == 270


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["corpus.txt", "--shape", "huge"], "there is no 'huge'; "),
        (["corpus.txt", "--shape", "toy", "--learning-rat", "1"], "did you mean 'learning_rate'"),
        (["corpus.txt", "--shape", "toy", "--vocab-size", "100"], "expected 257 at least"),
        (["no.txt", "--shape", "toy"], "no.txt: no such file"),
    ],
)
def test_mistakes_end_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", *words]) == 2
    assert said in capsys.readouterr().err
