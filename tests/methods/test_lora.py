from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import lora

IDS = torch.tensor([[5, 81, 2, 300, 17]])


def layer(base: nn.Module | None = None, **keys: Any) -> lora.LoraLinear:
    torch.manual_seed(0)
    made = lora.LoraLinear(base or nn.Linear(6, 5), lora.Config(r=2, **keys))
    nn.init.normal_(made.lora_B)
    return made


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [({"alpha": 3}, 1.5), ({"alpha": 3, "use_rslora": True}, 3 / 2**0.5), ({}, 16.0)],
)
def test_the_update_is_scaled_b_a(keys: dict[str, Any], scaling: float) -> None:
    made, x = layer(**keys), torch.randn(3, 6)
    assert made.scaling == scaling
    assert made.lora_A.shape == (2, 6)
    assert made.lora_B.shape == (5, 2)
    torch.testing.assert_close(made(x), made.base(x) + scaling * x @ (made.lora_B @ made.lora_A).T)


@pytest.mark.parametrize(("init", "deviation"), [("kaiming", 1 / (3 * 4096) ** 0.5), ("gaussian", 1 / 64)])
def test_a_starts_as_in_peft_and_b_at_zero(init: Any, deviation: float) -> None:
    torch.manual_seed(0)
    made = lora.LoraLinear(nn.Linear(4096, 4), lora.Config(r=64, init=init))
    assert made.lora_A.std().item() == pytest.approx(deviation, rel=0.01)
    assert not made.lora_B.any()


def test_dropout_is_for_training_and_leaves_the_base_alone() -> None:
    made, x = layer(dropout=0.5), torch.randn(64, 6)
    plain = made.eval()(x)
    assert torch.equal(made(x), plain)
    assert not torch.equal(made.train()(x), plain)
    nn.init.zeros_(made.lora_B)
    assert torch.equal(made(x), made.base(x))


def test_a_model_in_evaluation_mode_stays_in_it(toy_llama: Any) -> None:
    before = toy_llama(input_ids=IDS).logits
    lora.attach(toy_llama, lora.Config(r=2, dropout=0.5, alpha=100))
    for made in toy_llama.modules():
        if isinstance(made, lora.LoraLinear):
            nn.init.normal_(made.lora_B)
    adapted = toy_llama(input_ids=IDS).logits
    assert torch.equal(toy_llama(input_ids=IDS).logits, adapted)
    assert not torch.equal(adapted, before)


class Float32Face(nn.Linear):
    """As the engine's linear layer: bfloat16 inside, float32 outside."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input.bfloat16(), self.weight, self.bias).float()


def test_an_update_below_bfloat16_survives_on_a_float32_face() -> None:
    made, x = layer(Float32Face(6, 5, dtype=torch.bfloat16)), torch.randn(3, 6)
    made.lora_B.data *= 1e-5
    delta = made(x) - made.base(x)
    assert made(x).dtype == made.lora_A.dtype == torch.float32
    assert delta.count_nonzero() == delta.numel()


def test_a_plain_bfloat16_layer_stays_bfloat16() -> None:
    made = layer(nn.Linear(6, 5, dtype=torch.bfloat16))
    assert made(torch.randn(3, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert made.weight.dtype == torch.bfloat16


def test_detach_and_merge_leave_the_old_tensors_unchanged(toy_llama: Any) -> None:
    weight = toy_llama.model.layers[0].self_attn.q_proj.weight.data
    before = weight.clone()
    lora.attach(toy_llama, lora.Config(r=2))
    nn.init.ones_(toy_llama.model.layers[0].self_attn.q_proj.lora_B)
    lora.merge(toy_llama)
    assert torch.equal(weight, before)
    assert not torch.equal(toy_llama.model.layers[0].self_attn.q_proj.weight, before)


def test_merging_into_a_tied_head_is_refused(toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama", tie_word_embeddings=True)
    lora.attach(model, lora.Config(r=2, target_modules=["lm_head"]))
    nn.init.ones_(model.lm_head.lora_B)
    rows = model.get_input_embeddings().weight.clone()
    with pytest.raises(Mistake, match="lm_head shares its weight"):
        lora.merge(model)
    assert torch.equal(model.get_input_embeddings().weight, rows)


def test_a_head_of_its_own_merges(toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama", tie_word_embeddings=False)
    lora.attach(model, lora.Config(r=2, target_modules=["lm_head"]))
    nn.init.ones_(model.lm_head.lora_B)
    adapted = model(input_ids=IDS).logits
    lora.merge(model)
    torch.testing.assert_close(model(input_ids=IDS).logits, adapted, rtol=1e-5, atol=1e-5)


def test_merging_into_a_quantized_layer_is_refused(toy_llama: Any) -> None:
    projection = toy_llama.model.layers[0].mlp.up_proj
    projection.weight = nn.Parameter(torch.zeros(64, 32, dtype=torch.int8), requires_grad=False)
    lora.attach(toy_llama, lora.Config(r=2))
    with pytest.raises(Mistake, match=r"layers\.0\.mlp\.up_proj is quantized"):
        lora.merge(toy_llama)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora: True is another method"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias: 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"something_of_2027": 1}, "something_of_2027"),
        ({"init_lora_weights": "olora"}, "init_lora_weights: olora changes the base"),
        ({"task_type": "FEATURE_EXTRACTION"}, "task_type: FEATURE_EXTRACTION"),
    ],
)
def test_a_variant_of_lora_is_refused_rather_than_read_wrong(settings: dict[str, Any], message: str) -> None:
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    names = ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    assert lora.from_peft(plain, names).target_modules == ["q_proj"]
    with pytest.raises(Mistake) as caught:
        lora.from_peft(plain | settings, names)
    assert message in str(caught.value)


def test_an_adapter_without_lora_weights_is_refused() -> None:
    with pytest.raises(Mistake, match="no lora_A and lora_B"):
        lora.from_peft({"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}, ["base_model.model.x.inner.weight"])
