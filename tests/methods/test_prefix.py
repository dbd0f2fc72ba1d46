from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, prefix
from tunesmith.methods._beginning import Beginning
from tunesmith.methods.prefix import Config, Replaced, VirtualIds

IDS = torch.tensor([[5, 81, 2, 300]])


def test_the_table_is_laid_as_in_peft(toy_llama: Any) -> None:
    """For each layer keys, then values; each as many as the heads of keys and values are wide."""
    prefix.attach(toy_llama, Config(num_virtual_tokens=3, init="random"))
    (table,) = prefix.state(toy_llama).values()
    assert table.shape == (3, 2 * 2 * 16)  # two layers, keys and values, two heads of eight
    virtual: VirtualIds = toy_llama.get_input_embeddings()
    assert torch.equal(virtual.values(1), table[:, 48:])
    assert torch.equal(virtual.keys(0)[0], table[0, :16])  # position 0 does not turn
    assert not torch.allclose(virtual.keys(0)[1], table[1, :16])
    told = prefix.to_peft(toy_llama, Config())
    assert (told["token_dim"], told["num_attention_heads"], told["num_layers"]) == (16, 2, 2)


@pytest.mark.parametrize("kind", sorted(prefix.MODEL_TYPES))
def test_attention_keeps_exactly_the_learned_keys_and_values(kind: str, toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    prefix.attach(model, Config(num_virtual_tokens=6, init="random"))
    (table,) = prefix.state(model).values()
    table.normal_(generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.tensor([prefix.prefix_tokens(model)]), IDS], dim=1)
    kept = model(input_ids=ids, use_cache=True).past_key_values
    learned = table.view(6, 2, 2, -1)
    for number, layer in enumerate(kept.layers):
        for side, found in enumerate((layer.keys, layer.values)):
            flat = found[0, :, :6].transpose(0, 1).flatten(1)
            torch.testing.assert_close(flat, learned[:, number, side], rtol=0, atol=1e-5)


def test_only_keys_and_values_are_learned(toy_llama: Any) -> None:
    prefix.attach(toy_llama, Config(num_virtual_tokens=3, init="random"))
    assert _attachment.trainable(toy_llama).names == ("model.embed_tokens.prompt_embeddings",)
    replaced = {path for path, module in toy_llama.named_modules() if isinstance(module, Replaced)}
    assert replaced == {f"model.layers.{n}.self_attn.{side}_proj" for n in (0, 1) for side in "kv"}


def test_virtual_ids_may_stand_anywhere_and_more_than_once(toy_llama: Any) -> None:
    """As in a pack without sharing: each sequence has them, and each finds the same."""
    prefix.attach(toy_llama, Config(num_virtual_tokens=2, init="random"))
    virtual: VirtualIds = toy_llama.get_input_embeddings()
    layer = toy_llama.model.layers[0].self_attn.v_proj
    first, second = prefix.prefix_tokens(toy_llama)
    x = virtual(torch.tensor([[first, second, 7, first, second, 8]]))
    out = layer(x)[0]
    values = virtual.values(0)
    assert torch.equal(out[[0, 1, 3, 4]], values[[0, 1, 0, 1]])
    assert torch.equal(out[[2, 5]], layer.base(x)[0, [2, 5]])


def test_embeddings_in_the_place_of_ids_are_a_bug_that_is_told(toy_llama: Any) -> None:
    prefix.attach(toy_llama, Config(num_virtual_tokens=2, init="random"))
    toy_llama(input_ids=torch.tensor([[*prefix.prefix_tokens(toy_llama), 7]]))
    with pytest.raises(RuntimeError, match="call it with input_ids"):
        toy_llama(inputs_embeds=torch.zeros(1, 9, 32))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "gemma3_text"}, "got a model of type gemma3_text"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "got a model of type llama with rope_type longrope"),
    ],
)
def test_a_model_where_it_cannot_be_exact_is_refused(change: dict[str, Any], told: str, toy_llama: Any) -> None:
    (key, value) = next(iter(change.items()))
    object.__setattr__(toy_llama.config, key, value)
    with pytest.raises(Mistake, match=f"{told}.*type --method.name prompt_tuning"):
        prefix.attach(toy_llama, Config(init="random"))
    assert _attachment.attached(toy_llama) is None


def test_begin_without_a_text_says_what_to_give(toy_llama: Any) -> None:
    prefix.attach(toy_llama, Config())
    nothing = Beginning(lambda ids: torch.zeros(len(ids), 2, 2, 16), lambda path: torch.zeros(0))
    with pytest.raises(Mistake, match=r"init: text has no text to start from; give method\.init_text"):
        prefix.begin(toy_llama, Config(), nothing)


def test_peft_settings_that_are_not_understood_are_refused() -> None:
    settings = {"num_virtual_tokens": 4, "num_transformer_submodules": 2}
    with pytest.raises(Mistake, match="num_transformer_submodules is not 1"):
        prefix.from_peft(settings, {"prompt_embeddings"})
    with pytest.raises(Mistake, match="holds no prompt_embeddings"):
        prefix.from_peft(settings | {"num_transformer_submodules": 1}, {"other"})
    with pytest.raises(Mistake, match="modules_to_save"):
        prefix.from_peft({"num_virtual_tokens": 4, "modules_to_save": ["score"]}, {"prompt_embeddings"})
