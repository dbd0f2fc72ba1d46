from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.core.config import choose
from tunesmith.core.records import Encoded
from tunesmith.engine.begin import attach, keys_and_values
from tunesmith.engine.forward import forward
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import prepare

TEXT = (17, 250, 9, 33, 61)
ROWS = [Encoded(tuple(range(5, 25)), (0.0,) * 15 + (1.0,) * 5), Encoded(tuple(range(40, 70)), (0.0, *([1.0] * 29)))]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2"])
def test_a_prefix_says_at_first_what_its_text_says(kind: str, toy_model: Callable[..., Any]) -> None:
    prepared = prepare(toy_model(kind), "float32")
    told = forward(prepared, pack(ROWS, prefix=TEXT)).logprobs
    method = choose("methods", "prefix", num_virtual_tokens=len(TEXT), init_ids=TEXT)
    attach(prepared, method)
    prefix = method.module.prefix_tokens(prepared.model)
    torch.testing.assert_close(forward(prepared, pack(ROWS, prefix=prefix)).logprobs, told, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_what_is_read_is_what_transformers_keeps(kind: str, toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    kept = model(input_ids=torch.tensor([TEXT]), use_cache=True).past_key_values
    read = keys_and_values(prepare(model, "float32"), TEXT)
    for number, layer in enumerate(kept.layers):
        for side, theirs in enumerate((layer.keys, layer.values)):
            torch.testing.assert_close(read[:, number, side], theirs[0].transpose(0, 1).flatten(1), rtol=0, atol=1e-5)


def test_the_text_is_repeated_to_length(toy_model: Callable[..., Any]) -> None:
    prepared = prepare(toy_model("llama"), "float32")
    wanted = keys_and_values(prepared, (*TEXT, *TEXT[:2])).flatten(1)
    method = choose("methods", "prefix", num_virtual_tokens=7, init_ids=TEXT)
    attach(prepared, method)
    found = method.module.state(prepared.model)["prompt_embeddings"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)  # one product, or one for each layer


def test_noise_stays_noise_and_other_methods_are_attached_as_ever(toy_model: Callable[..., Any]) -> None:
    prepared = prepare(toy_model("llama"), "float32")
    noise = choose("methods", "prefix", num_virtual_tokens=50, init="random")
    attach(prepared, noise)
    assert noise.module.state(prepared.model)["prompt_embeddings"].std() == pytest.approx(0.02, rel=0.05)
    noise.module.detach(prepared.model)
    lora = choose("methods", "lora")
    attach(prepared, lora)
    assert lora.module.state(prepared.model)
