from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.methods import _artifact, _attachment, bitfit, full, lora

ORIGIN = _artifact.Origin("toy-base", "a1b2c3", "d4e5f6", {"name": "classification", "labels": ["no", "yes"]})


def saved(folder: Path, model: Any, name: str = "lora", **keys: Any) -> Path:
    chosen = choose("methods", name, **keys)
    chosen.module.attach(model, chosen.config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1
    _artifact.save(folder, model, name, chosen.config, ORIGIN)
    return folder


@pytest.fixture
def adapter(toy_model: Callable[..., Any], tmp_path: Path) -> Path:
    return saved(tmp_path / "adapter", toy_model(), r=2)


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_the_folder_says_what_it_is(adapter: Path) -> None:
    found = _artifact.describe(adapter)
    assert (found.method, found.config, found.origin) == ("lora", lora.Config(r=2), ORIGIN)
    assert set(found.versions) == {"tunesmith", "torch", "transformers"}
    assert {path.name for path in adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tunesmith.json",
    }
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "toy-base"


def test_what_peft_does_not_know_is_a_delta_by_parameter_names(toy_llama: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", toy_llama, "bitfit")
    assert {path.name for path in folder.iterdir()} == {"delta.safetensors", "tunesmith.json"}
    assert set(load_file(folder / "delta.safetensors")) == set(bitfit.state(toy_llama))


def test_a_whole_model_loads_in_transformers(toy_llama: Any, toy_tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    full.attach(toy_llama, full.Config())
    torch.nn.init.ones_(toy_llama.model.norm.weight)
    _artifact.save(tmp_path / "x", toy_llama, "full", full.Config(), ORIGIN, beside=toy_tokenizer.save_pretrained)
    assert {"config.json", "model.safetensors", "tokenizer.json", "tunesmith.json"} <= {
        path.name for path in (tmp_path / "x").iterdir()
    }
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "x")
    ids = torch.tensor([[5, 81, 2]])
    assert torch.equal(loaded(input_ids=ids).logits, toy_llama(input_ids=ids).logits)


def test_saving_again_replaces_the_folder_as_a_whole(adapter: Path, toy_model: Callable[..., Any]) -> None:
    (adapter / "stray").write_text("")
    saved(adapter, toy_model(), "bitfit")
    assert {path.name for path in adapter.iterdir()} == {"delta.safetensors", "tunesmith.json"}


def test_a_failure_beside_leaves_nothing(toy_llama: Any, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise ZeroDivisionError

    bitfit.attach(toy_llama, bitfit.Config())
    with pytest.raises(ZeroDivisionError):
        _artifact.save(tmp_path / "x", toy_llama, "bitfit", bitfit.Config(), ORIGIN, beside=fail)
    assert list(tmp_path.iterdir()) == []


def refused(folder: Path, model: Any, message: str, identity: str = "") -> None:
    """Loading says `message` in one line and leaves the model as it was."""
    before = [(path, id(module)) for path, module in model.named_modules()]
    with pytest.raises(Mistake) as caught:
        _artifact.load(folder, model, identity)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _attachment.attached(model) is None
    assert [(path, id(module)) for path, module in model.named_modules()] == before


def test_another_base_is_refused_by_identity(adapter: Path, toy_llama: Any) -> None:
    refused(adapter, toy_llama, "made for the base toy-base (a1b2c3), but this model is another (ffff)", "ffff")
    assert _artifact.load(adapter, toy_llama, "a1b2c3")[0] == "lora"


@pytest.mark.parametrize("name", ["lora", "bitfit", "full"])
def test_another_base_is_refused_by_shape(name: str, toy_model: Callable[..., Any], tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", toy_model(), name)
    refused(folder, toy_model(hidden_size=64, head_dim=16), "has shape")


def test_another_base_is_refused_by_depth(adapter: Path, toy_model: Callable[..., Any]) -> None:
    refused(adapter, toy_model(num_hidden_layers=3), "the weights lack base_model.model.model.layers.2.")
    refused(adapter, toy_model(num_hidden_layers=1), "fits nowhere in this model")


def test_another_family_is_refused(adapter: Path, toy_model: Callable[..., Any]) -> None:
    refused(adapter, toy_model("gpt2"), "fits nowhere in this model")


def test_weights_under_other_names_are_refused(adapter: Path, toy_llama: Any) -> None:
    """Soup v0.72 saved ``.inner.`` keys that loaded as the untuned base."""
    path = adapter / "adapter_model.safetensors"
    save_file({key.replace("q_proj", "q_proj.inner"): value for key, value in load_file(path).items()}, path)
    refused(adapter, toy_llama, "q_proj.inner.lora_A.weight fits nowhere")
    (adapter / "tunesmith.json").unlink()
    refused(adapter, toy_llama, "q_proj.inner.lora_A.weight fits nowhere")


def test_a_nan_on_disk_is_refused(adapter: Path, toy_llama: Any) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values()))[0, :2] = torch.tensor([float("nan"), float("inf")])
    save_file(weights, path)
    refused(adapter, toy_llama, "2 of 128 numbers in base_model.model.model.layers.0")


def test_what_is_no_artifact_is_refused(adapter: Path, toy_llama: Any, tmp_path: Path) -> None:
    refused(tmp_path / "missing", toy_llama, "no artifact here; expected a folder with tunesmith.json")
    refused(tmp_path, toy_llama, "no artifact here")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    refused(adapter, toy_llama, "adapter_model.bin is a pickle")
    (adapter / "adapter_model.bin").unlink()
    refused(adapter, toy_llama, "the weights are missing")


@pytest.mark.parametrize("name", ["lora", "full"])
def test_cut_off_weights_are_refused(name: str, toy_model: Callable[..., Any], tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", toy_model(), name)
    path = next(folder.glob("*model.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, toy_model(), "not readable")


def test_settings_that_are_not_as_written_are_refused(adapter: Path, toy_llama: Any) -> None:
    about = adapter / "tunesmith.json"
    whole = about.read_text()
    about.write_text(whole[:40])
    refused(adapter, toy_llama, "not readable as JSON")
    about.write_text("[]")
    refused(adapter, toy_llama, "got a list; expected an object")
    about.write_text("{}")
    refused(adapter, toy_llama, "incomplete ('method')")
    about.write_text(whole)
    change(about, format=99)
    refused(adapter, toy_llama, "written by a newer tunesmith")
    change(about, format=1, method="lorra")
    refused(adapter, toy_llama, "there is no 'lorra'; did you mean 'lora'?")
    change(about, method="lora", config={"rnak": 3})
    refused(adapter, toy_llama, "unknown key")


def test_a_foreign_adapter_that_is_not_understood_is_refused(adapter: Path, toy_llama: Any) -> None:
    (adapter / "tunesmith.json").unlink()
    settings = adapter / "adapter_config.json"
    assert _artifact.describe(adapter).origin == _artifact.Origin("toy-base")
    change(settings, bias="all")
    refused(adapter, toy_llama, "bias: 'all' is not supported by lora")
    change(settings, bias="none", r="many")
    refused(adapter, toy_llama, "adapter_config.json: 1 validation error")
    change(settings, peft_type="VERRA")
    refused(adapter, toy_llama, "peft_type: got VERRA; expected a type of the installed peft; did you mean 'VERA'?")
