from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.models import info as module
from tunesmith.models.info import info


def test_a_folder_is_described_without_its_weights(
    toy_folder: Path, toy_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("weights read"))
    told = info(str(toy_folder))
    assert told.parameters == sum(weight.numel() for weight in toy_llama.parameters())
    assert told.bytes == (toy_folder / "model.safetensors").stat().st_size
    assert (told.layers, told.hidden, told.vocabulary, told.context) == (2, 32, 400, 512)
    assert (told.kind, told.architecture, told.folder) == ("decoder", "LlamaForCausalLM", toy_folder)
    assert told.chat_template is True


def test_a_catalogue_model_that_is_not_pulled_is_described_from_the_table() -> None:
    told = info("SmolLM2-135M-instruct", offline=True)
    assert (told.name, told.parameters, told.context, told.folder) == ("smollm2-135m-instruct", 134515008, 8192, None)
    assert told.licence == "Apache-2.0"


def test_a_hub_model_that_is_not_pulled_is_described_from_its_configuration(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_llama: Any
) -> None:
    (tmp_path / "config.json").write_bytes((toy_folder / "config.json").read_bytes())
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Toy\n")
    monkeypatch.setattr(module, "describe", lambda *_, **__: tmp_path)
    told = info("nobody/toy")
    assert told.parameters == sum(weight.numel() for weight in toy_llama.parameters())
    assert told.bytes == 2 * told.parameters
    assert (told.licence, told.folder, told.chat_template) == ("mit", None, None)


def test_a_readme_without_a_licence_says_nothing(toy_folder: Path, tmp_path: Path) -> None:
    for text in ("# Toy", "---\n: [broken\n---\n", "text --- license: mit"):
        (tmp_path / "README.md").write_text(text)
        assert module._licence(tmp_path) == ""


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(Mistake, match="offline"):
        info("nobody/nothing")
    with pytest.raises(Mistake, match="there is no 'smolm'"):
        info("smolm")
