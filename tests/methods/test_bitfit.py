from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, bitfit
from tunesmith.methods.bitfit import Config


def last_parts(model: Any) -> set[str]:
    return {".".join(name.split(".")[-2:]) for name in _attachment.trainable(model).names}


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        ("llama", {}, {"input_layernorm.weight", "post_attention_layernorm.weight", "norm.weight"}),
        ("qwen2", {}, {"q_proj.bias", "k_proj.bias", "v_proj.bias"}),
        ("qwen2", {"biases": False, "norms": True}, {"input_layernorm.weight", "post_attention_layernorm.weight"}),
        ("gpt2", {}, {"c_attn.bias", "c_fc.bias", "c_proj.bias", "ln_1.bias", "ln_2.bias", "ln_f.bias"}),
        ("gpt2", {"biases": False}, {"ln_1.weight", "ln_2.weight", "ln_f.weight"}),
        (
            "gemma2",
            {},
            {"input_layernorm.weight", "post_attention_layernorm.weight", "norm.weight"}
            | {"pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"},
        ),
    ],
)
def test_what_is_trained(kind: str, keys: dict[str, Any], expected: set[str], toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    bitfit.attach(model, Config(**keys))
    assert last_parts(model) == expected | ({"norm.weight"} if kind == "qwen2" and keys else set())


def test_both_together(toy_model: Callable[..., Any]) -> None:
    model = toy_model("qwen2")
    bitfit.attach(model, Config(norms=True))
    assert {"q_proj.bias", "norm.weight"} <= last_parts(model)


@pytest.mark.parametrize("keys", [{"norms": False}, {"biases": False, "norms": False}])
def test_nothing_to_train_is_a_mistake(keys: dict[str, Any], toy_llama: Any) -> None:
    with pytest.raises(Mistake, match=r"finds nothing to train in this model; type --method\.norms true"):
        bitfit.attach(toy_llama, Config(**keys))
    assert _attachment.attached(toy_llama) is None
    assert all(parameter.requires_grad for parameter in toy_llama.parameters())
