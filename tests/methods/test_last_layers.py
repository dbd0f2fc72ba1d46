from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, _blocks, last_layers
from tunesmith.methods.last_layers import Config

IDS = torch.tensor([[5, 81, 2, 300]])


@pytest.mark.parametrize(
    ("kind", "where", "norm"),
    [("llama", "model.layers.{}.", "model.norm.weight"), ("gpt2", "transformer.h.{}.", "transformer.ln_f.weight")],
)
def test_the_last_layers_and_the_norm_over_them(
    kind: str, where: str, norm: str, toy_model: Callable[..., Any]
) -> None:
    model = toy_model(kind, **({"n_layer": 4} if kind == "gpt2" else {"num_hidden_layers": 4}))
    last_layers.attach(model, Config(layers=2))
    names = set(_attachment.trainable(model).names)
    in_layers = {name for name, _ in model.named_parameters() if name.startswith((where.format(2), where.format(3)))}
    assert in_layers < names
    assert norm in names
    assert names - in_layers == {name for name in names if name.startswith(norm.removesuffix("weight"))}


def test_the_norm_can_be_left_and_an_untied_head_taken(toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama", tie_word_embeddings=False)
    last_layers.attach(model, Config(layers=1, norm=False, head=True))
    names = _attachment.trainable(model).names
    assert "lm_head.weight" in names
    assert all(name.startswith(("model.layers.1.", "lm_head.")) for name in names)


def test_nothing_below_is_part_of_the_graph(toy_model: Callable[..., Any]) -> None:
    """The lowest trained layer reads a hidden state that no gradient is wanted of, so backward ends there."""
    model = toy_model("llama", num_hidden_layers=4)
    last_layers.attach(model, Config(layers=2))
    seen = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad))
    model(input_ids=IDS).logits.sum().backward()
    assert seen == [False, False, False, True]


def test_more_layers_than_there_are_is_a_mistake(toy_llama: Any) -> None:
    with pytest.raises(Mistake, match=r"method\.layers: got 3; expected at most 2"):
        last_layers.attach(toy_llama, Config(layers=3))
    assert _attachment.attached(toy_llama) is None


def test_a_tied_head_is_a_mistake(toy_llama: Any) -> None:
    with pytest.raises(Mistake, match=r"method\.head: .*\(tied\)"):
        last_layers.attach(toy_llama, Config(head=True))


def test_every_parameter_has_one_place_between_input_and_output(toy_model: Callable[..., Any]) -> None:
    model = toy_model("llama", tie_word_embeddings=False)
    parts = _blocks.parameters_by_block(model)
    assert [place for place, _ in parts] == ["", "model.layers.0", "model.layers.1", ""]
    assert parts[0][1] == ["model.embed_tokens.weight"]
    assert parts[-1][1] == ["model.norm.weight", "lm_head.weight"]
    assert sorted(name for _, names in parts for name in names) == sorted(dict(model.named_parameters()))


def test_an_encoders_blocks_stand_before_its_decoders() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=16, d_ff=16, d_kv=4, num_heads=4, num_layers=2, num_decoder_layers=3, vocab_size=64)
    places = list(_blocks.blocks(T5ForConditionalGeneration(config)))
    assert places == [*(f"encoder.block.{n}" for n in range(2)), *(f"decoder.block.{n}" for n in range(3))]


def test_a_model_without_blocks_is_a_mistake(toy_llama: Any) -> None:
    toy_llama.config.num_hidden_layers = 7
    with pytest.raises(Mistake, match="LlamaForCausalLM is not made of repeated layers"):
        _blocks.blocks(toy_llama)
