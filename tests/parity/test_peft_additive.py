"""The additive family in peft and peft's in ours: the same logits both ways, at toy size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.rooms import choice
from tunesmith.methods import _artifact, ia3

IDS = torch.tensor([[5, 81, 2, 300, 17, 44, 44, 9, 120], [7, 7, 250, 11, 99, 3, 60, 1, 8]])
KINDS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2")
ToyModel = Callable[..., Any]
# peft 0.21 still asks transformers 5.23 for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
each_kind = pytest.mark.parametrize("kind", KINDS)


def disturb(parameters: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def logits(model: Any, prefix: tuple[int, ...] = ()) -> Tensor:
    """Ours takes the virtual tokens as ids; peft puts them in front by itself."""
    ids = torch.cat([torch.tensor(prefix, dtype=torch.long).expand(len(IDS), -1), IDS], dim=1)
    result: Tensor = model(input_ids=ids).logits
    return result[:, -IDS.shape[1] :]


def same(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def attached(model: Any, name: str, folder: Path, **keys: Any) -> Any:
    """The model with a method attached, moved as by training, and saved."""
    chosen = choose("methods", name, **keys)
    torch.manual_seed(0)
    chosen.module.attach(model, chosen.config)
    disturb(p for p in model.parameters() if p.requires_grad)
    _artifact.save(folder, model, name, chosen.config, _artifact.Origin("toy-base"))
    return model


FACTORS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    ("llama", {"target_modules": "all-linear"}),
    ("llama", {"target_modules": ["o_proj", "v_proj"], "feedforward_modules": ["o_proj"]}),
    ("qwen2", {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": []}),
    ("gpt2", {"target_modules": r".*h\.1\..*"}),
]


@pytest.mark.parametrize(("kind", "keys"), FACTORS)
def test_our_ia3_is_the_same_in_peft(kind: str, keys: dict[str, Any], toy_model: ToyModel, tmp_path: Path) -> None:
    model = attached(toy_model(kind), "ia3", tmp_path / "ours", **keys)
    loaded = peft.PeftModel.from_pretrained(toy_model(kind), tmp_path / "ours")
    assert sum("ia3_l" in name for name, _ in loaded.named_parameters()) == len(ia3.state(model))
    same(logits(loaded), logits(model))
    same(logits(loaded.merge_and_unload()), logits(model))
    assert not torch.allclose(logits(model), logits(toy_model(kind)), atol=1e-2)


THEIRS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt2")),
    ("phi3", {"target_modules": ["qkv_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    ("llama", {"target_modules": r".*layers\.1.*(k_proj|up_proj)", "feedforward_modules": r".*up_proj"}),
]


@pytest.mark.parametrize(("kind", "keys"), THEIRS)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # peft corrects itself on GPT-2
def test_peft_ia3_is_the_same_in_ours(kind: str, keys: dict[str, Any], toy_model: ToyModel, tmp_path: Path) -> None:
    wrapped = peft.get_peft_model(toy_model(kind), peft.IA3Config(task_type="CAUSAL_LM", **keys))
    disturb(p for p in wrapped.parameters() if p.requires_grad)
    wrapped.save_pretrained(tmp_path / "theirs")
    model = toy_model(kind)
    assert _artifact.load(tmp_path / "theirs", model)[0] == "ia3"
    same(logits(model), logits(wrapped))
    assert not torch.allclose(logits(model), logits(toy_model(kind)), atol=1e-2)


SOFT = ("prefix", "p_tuning")


@each_kind
@pytest.mark.parametrize("name", SOFT)
def test_our_virtual_tokens_are_the_same_in_peft(name: str, kind: str, toy_model: ToyModel, tmp_path: Path) -> None:
    model = attached(toy_model(kind), name, tmp_path / "ours", num_virtual_tokens=7, init="random")
    prefix = choice("methods", name).prefix_tokens(model)
    loaded = peft.PeftModel.from_pretrained(toy_model(kind), tmp_path / "ours")
    same(logits(loaded), logits(model, prefix))
    assert not torch.allclose(logits(model, prefix), logits(toy_model(kind)), atol=1e-2)


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_a_window_slides_over_the_prefix_as_in_peft(kind: str, toy_model: ToyModel, tmp_path: Path) -> None:
    """Prefix and text are both longer than the window: the last tokens do not see the prefix any more."""
    keys = {"num_virtual_tokens": 7, "init": "random"}
    model = attached(toy_model(kind, sliding_window=5), "prefix", tmp_path / "ours", **keys)
    loaded = peft.PeftModel.from_pretrained(toy_model(kind, sliding_window=5), tmp_path / "ours")
    same(logits(loaded), logits(model, choice("methods", "prefix").prefix_tokens(model)))


THEIR_SOFT: list[tuple[str, dict[str, Any]]] = [
    ("prefix", {}),
    ("prefix", {"prefix_projection": True, "encoder_hidden_size": 12}),
    ("p_tuning", {}),
    ("p_tuning", {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 12}),
]
PEFT_CONFIGS = {"prefix": peft.PrefixTuningConfig, "p_tuning": peft.PromptEncoderConfig}


@each_kind
@pytest.mark.parametrize(("name", "keys"), THEIR_SOFT)
def test_peft_virtual_tokens_are_the_same_in_ours(
    name: str, keys: dict[str, Any], kind: str, toy_model: ToyModel, tmp_path: Path
) -> None:
    settings = PEFT_CONFIGS[name](task_type="CAUSAL_LM", num_virtual_tokens=7, **keys)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(toy_model(kind), settings).eval()
    wrapped.save_pretrained(tmp_path / "theirs")
    model = toy_model(kind)
    assert _artifact.load(tmp_path / "theirs", model)[0] == name
    found = logits(model, choice("methods", name).prefix_tokens(model))
    same(found, logits(wrapped))
    assert not torch.allclose(found, logits(toy_model(kind)), atol=1e-2)


@pytest.mark.parametrize(("name", "kind"), [("ia3", peft.IA3Config), *PEFT_CONFIGS.items()])
def test_peft_knows_every_key_we_write(
    name: str, kind: type[Any], toy_model: ToyModel, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    attached(toy_model("llama"), name, tmp_path / "ours", **({} if name == "ia3" else {"init": "random"}))
    written = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    read = peft.PeftConfig.from_pretrained(str(tmp_path / "ours"))
    assert type(read) is kind
    back = {key: sorted(value) if isinstance(value, set) else value for key, value in read.to_dict().items()}
    assert {key: back[key] for key in written} == written
    assert not recwarn.list
