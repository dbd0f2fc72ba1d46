from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import ia3
from tunesmith.methods.ia3 import Config, ScaledLinear

KEYS_AND_VALUES = {
    "llama": ["down_proj", "k_proj", "v_proj"],
    "qwen2": ["down_proj", "k_proj", "v_proj"],
    "gemma2": ["down_proj", "k_proj", "v_proj"],
    "phi3": ["down_proj", "qkv_proj"],
    "gpt2": ["attn.c_attn", "mlp.c_proj"],
}


def _by_hand() -> nn.Linear:
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        layer.bias.copy_(torch.tensor([1.0, 1.0, 1.0]))
    return layer


def test_outputs_are_multiplied_by_hand() -> None:
    layer = ScaledLinear(_by_hand(), feedforward=False)
    layer.ia3_l.data = torch.tensor([[1.0], [10.0], [100.0]])
    # W (1, 1) + b = (4, 8, 12), and l ∘ that
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [4.0, 80.0, 1200.0]


def test_a_feed_forward_layers_inputs_are_multiplied_by_hand() -> None:
    layer = ScaledLinear(_by_hand(), feedforward=True)
    layer.ia3_l.data = torch.tensor([[1.0, 10.0]])
    # W (1, 10) + b; the bias is not multiplied
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [22.0, 44.0, 66.0]


@pytest.mark.parametrize("kind", KEYS_AND_VALUES)
def test_auto_is_keys_values_and_the_feed_forward_output(kind: str, toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    ia3.attach(model, Config())
    layers = {path: m for path, m in model.named_modules() if isinstance(m, ScaledLinear)}
    assert len(layers) == 2 * len(KEYS_AND_VALUES[kind])
    assert {path for path in layers if not path.endswith(tuple(KEYS_AND_VALUES[kind]))} == set()
    assert {path.rpartition(".")[2] for path, m in layers.items() if m.feedforward} == {KEYS_AND_VALUES[kind][0]} or (
        kind == "gpt2" and {path[-10:] for path, m in layers.items() if m.feedforward} == {"mlp.c_proj"}
    )


def test_feed_forward_modules_of_ones_own_choice(toy_llama: Any) -> None:
    ia3.attach(toy_llama, Config(target_modules=["o_proj", "v_proj"], feedforward_modules=["o_proj"]))
    layer = toy_llama.model.layers[0].self_attn
    assert (layer.o_proj.feedforward, layer.v_proj.feedforward) == (True, False)
    assert layer.o_proj.ia3_l.shape == (1, 32)
    ia3.detach(toy_llama)
    ia3.attach(toy_llama, Config(target_modules=["down_proj"], feedforward_modules=[]))
    assert toy_llama.model.layers[0].mlp.down_proj.ia3_l.shape == (32, 1)


def test_a_feed_forward_module_that_is_no_target_is_refused(toy_llama: Any) -> None:
    with pytest.raises(Mistake, match=r"feedforward_modules: model\.layers\.0\.mlp\.down_proj is not among"):
        ia3.attach(toy_llama, Config(target_modules=["k_proj"], feedforward_modules=["down_proj"]))
    assert not any(isinstance(m, ScaledLinear) for m in toy_llama.modules())


def test_a_model_with_names_of_its_own_is_refused_in_a_line() -> None:
    with pytest.raises(Mistake, match=r"\(Sequential\) has no feed-forward output under a name known here"):
        ia3.attach(nn.Sequential(nn.Linear(2, 2)), Config())


def test_a_tied_head_is_not_merged(toy_llama: Any) -> None:
    ia3.attach(toy_llama, Config(target_modules=["lm_head"]))
    with pytest.raises(Mistake, match="lm_head shares its weight"):
        ia3.merge(toy_llama)


def test_names_keep_the_feed_forward_ones_among_the_targets(toy_llama: Any) -> None:
    """PEFT refuses feed-forward modules that are not, letter for letter, among the target modules."""
    config = Config(target_modules=["model.layers.0.self_attn.k_proj", "down_proj"])
    ia3.attach(toy_llama, config)
    told = ia3.to_peft(toy_llama, config)
    assert set(told["feedforward_modules"]) < set(told["target_modules"])
    assert told["feedforward_modules"] == [f"model.layers.{n}.mlp.down_proj" for n in (0, 1)]


def test_peft_settings_that_are_not_understood_are_refused() -> None:
    names = ["base_model.model.a.ia3_l"]
    with pytest.raises(Mistake, match="modules_to_save"):
        ia3.from_peft({"feedforward_modules": [], "modules_to_save": ["score"]}, names)
    with pytest.raises(Mistake, match="no ia3_l weights"):
        ia3.from_peft({}, ["base_model.model.a.lora_A.weight"])
    assert ia3.from_peft({"feedforward_modules": ".*a"}, names).feedforward_modules == ["a"]


def test_a_bias_is_merged_with_the_outputs_and_not_with_the_inputs() -> None:
    for feedforward in (False, True):
        model = nn.Sequential(_by_hand())
        ia3.attach(model, Config(target_modules=["0"], feedforward_modules=["0"] if feedforward else []))
        model[0].ia3_l.data = torch.tensor([[1.0, 10.0]]) if feedforward else torch.tensor([[1.0], [10.0], [100.0]])
        ia3.merge(model)
        wanted = [22.0, 44.0, 66.0] if feedforward else [4.0, 80.0, 1200.0]
        assert model(torch.tensor([1.0, 1.0])).tolist() == wanted
