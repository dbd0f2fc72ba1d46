from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, dora


def layer(weight: Tensor, bias: Tensor | None = None, **keys: Any) -> dora.DoraLinear:
    base = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).requires_grad_(False)
    base.weight.data = weight
    if bias is not None:
        base.bias.data = bias
    torch.manual_seed(0)
    return dora.DoraLinear(base, dora.Config(**keys))


def test_the_weight_is_turned_and_stretched() -> None:
    """‖(3, 4)‖ = 5. With s = 2 and B A = (1, 4), W + s B A = (5, 12), whose norm is 13; m = 26 doubles it."""
    made = layer(torch.tensor([[3.0, 4.0]]), torch.tensor([7.0]), r=1, alpha=2)
    assert made.magnitude.tolist() == [5.0]
    made.lora_A.data, made.lora_B.data = torch.tensor([[1.0, 4.0]]), torch.tensor([[1.0]])
    made.magnitude.data = torch.tensor([26.0])
    torch.testing.assert_close(made.merged()["weight"], torch.tensor([[10.0, 24.0]]))
    torch.testing.assert_close(made(torch.tensor([[1.0, 1.0]])), torch.tensor([[10.0 + 24.0 + 7.0]]))


def test_the_norm_is_a_constant_to_the_gradient() -> None:
    """At the start m / ‖W‖ = 1, so the gradient of B is LoRA's, and that of m is the unit row's: W x / ‖W‖."""
    made = layer(torch.tensor([[3.0, 4.0]]), r=1, alpha=2)
    x = torch.tensor([[1.0, 2.0]])
    made(x).sum().backward()
    assert made.lora_B.grad is not None
    assert made.magnitude.grad is not None
    torch.testing.assert_close(made.lora_B.grad, 2 * (x @ made.lora_A.detach().T))
    torch.testing.assert_close(made.magnitude.grad, torch.tensor([(3.0 + 8.0) / 5.0]))


def test_dropout_is_for_training_and_leaves_the_base_alone() -> None:
    torch.manual_seed(1)
    made, x = layer(torch.randn(5, 6), dropout=0.5, r=2), torch.randn(64, 6)
    nn.init.normal_(made.lora_B)
    plain = made.eval()(x)
    assert torch.equal(made(x), plain)
    assert not torch.equal(made.train()(x), plain)


def test_a_quantized_layer_has_no_norm(toy_llama: Any) -> None:
    projection = toy_llama.model.layers[0].mlp.up_proj
    projection.weight = nn.Parameter(torch.zeros(64, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(Mistake, match=r"stored as torch.int8; expected a model that is not quantized"):
        dora.attach(toy_llama, dora.Config(r=2))
    assert _attachment.attached(toy_llama) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": False}, "use_dora is off"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa changes the base"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
        ({"lora_bias": True}, "lora_bias"),
    ],
)
def test_what_it_cannot_compute_is_refused(settings: dict[str, Any], message: str) -> None:
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "use_dora": True}
    names = ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    assert dora.from_peft(plain, names).target_modules == ["q_proj"]
    with pytest.raises(Mistake, match=message):
        dora.from_peft(plain | settings, names)
