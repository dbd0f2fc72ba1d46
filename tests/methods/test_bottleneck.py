from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.methods import _attachment, bottleneck
from tunesmith.methods.bottleneck import AdaptedLinear, Config

AFTER_FEEDFORWARD = {"llama": "mlp.down_proj", "gemma2": "mlp.down_proj", "gpt2": "mlp.c_proj", "phi3": "mlp.down_proj"}
AFTER_ATTENTION = {"llama": "attn.o_proj", "gemma2": "attn.o_proj", "gpt2": "attn.c_proj", "phi3": "attn.o_proj"}


def test_the_equation_by_hand() -> None:
    base = nn.Linear(2, 2, bias=False)
    layer = AdaptedLinear(base, Config(reduction_factor=2, activation="relu"))
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        layer.down_weight.copy_(torch.tensor([[3.0, 1.0]]))
        layer.down_bias.fill_(-1.0)
        layer.up_weight.copy_(torch.tensor([[1.0], [10.0]]))
        layer.up_bias.copy_(torch.tensor([0.5, 0.0]))
    # h = W (1, 1) = (1, 2); relu(3·1 + 1·2 - 1) = 4; h + (1, 10)·4 + (0.5, 0)
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [5.5, 42.0]
    # h = (-1, -2); the bend lets nothing through, the bias stays
    assert layer(torch.tensor([-1.0, -1.0])).tolist() == [-0.5, -2.0]


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("kind", AFTER_ATTENTION)
def test_where_the_adapters_stand(kind: str, placement: Any, toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    bottleneck.attach(model, Config(placement=placement))
    found = {path for path, module in model.named_modules() if isinstance(module, AdaptedLinear)}
    ends = [AFTER_FEEDFORWARD[kind], *([AFTER_ATTENTION[kind]] if placement == "houlsby" else [])]
    assert len(found) == 2 * len(ends)  # two layers
    assert all(path.endswith(tuple(ends)) for path in found)


@pytest.mark.parametrize(("factor", "narrow"), [(16, 2), (2, 16), (1, 32), (1000, 1)])
def test_how_narrow_it_is_and_what_it_costs(factor: float, narrow: int, toy_llama: Any) -> None:
    bottleneck.attach(toy_llama, Config(reduction_factor=factor))
    assert toy_llama.model.layers[0].mlp.down_proj.down_weight.shape == (narrow, 32)
    assert _attachment.trainable(toy_llama).count == 2 * (2 * 32 * narrow + narrow + 32)


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "tanh"])
def test_every_activation_is_one_of_torch(activation: Any, toy_llama: Any) -> None:
    bottleneck.attach(toy_llama, Config(activation=activation))
    assert toy_llama(input_ids=torch.tensor([[5, 6]])).logits.isfinite().all()
