from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.models.folder import check_folder, is_whole, read_config


@pytest.fixture
def folder(toy_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy model that a test may damage."""
    copy = tmp_path / "copy"
    shutil.copytree(toy_folder, copy)
    return copy


def refused(folder: Path, match: str) -> None:
    with pytest.raises(Mistake, match=match) as caught:
        check_folder(folder, "it")
    assert "\n" not in str(caught.value)


def test_a_whole_folder_passes(folder: Path) -> None:
    check_folder(folder, "it")
    assert is_whole(folder)


def test_a_folder_without_configuration_says_what_it_seems_to_be(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "has no config.json; expected a folder as transformers' save_pretrained writes it")
    (folder / "model.Q4.gguf").touch()
    refused(folder, r"type `.*model\.Q4\.gguf` for the \.gguf file in it")
    (folder / "adapter_config.json").touch()
    refused(folder, "it is an adapter: give its base as `model`")
    assert not is_whole(folder)


def test_damaged_weights_are_told_before_anything_is_built(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    refused(folder, "is damaged .*; expected whole weights; fetch it again")


def test_pickled_weights_are_refused_unless_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "only pickled weights, which can run any code; .* TUNESMITH_ALLOW_PICKLE=1")
    monkeypatch.setenv("TUNESMITH_ALLOW_PICKLE", "1")
    check_folder(folder, "it")


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, r"no weights; expected model\.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "lacks model-00001-of-00002.safetensors, model-00002-of-00002.safetensors")
    assert not is_whole(folder)


def test_a_configuration_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{'single': quotes}")
    with pytest.raises(Mistake, match="not JSON"):
        read_config(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(Mistake, match="got a list; expected a model's configuration"):
        read_config(folder)
