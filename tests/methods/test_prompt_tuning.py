from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.methods import prompt_tuning
from tunesmith.methods.prompt_tuning import Config


def vectors(model: Any, config: Config) -> torch.Tensor:
    prompt_tuning.attach(model, config)
    return prompt_tuning.state(model)["prompt_embeddings"]


@pytest.mark.parametrize(
    ("ids", "expected"), [((7, 8, 9), [7, 8, 9, 7, 8]), ((1, 2, 3, 4, 5, 6), [1, 2, 3, 4, 5]), ((4,), [4] * 5)]
)
def test_text_is_repeated_or_cut_to_length(ids: tuple[int, ...], expected: list[int], toy_llama: Any) -> None:
    rows = toy_llama.get_input_embeddings().weight[expected]
    assert torch.equal(vectors(toy_llama, Config(num_virtual_tokens=5, init_ids=ids)), rows)


def test_resolve_takes_the_given_text_or_else_the_instruction(toy_tokenizer: Any) -> None:
    ids = tuple(toy_tokenizer("movie review", add_special_tokens=False)["input_ids"])
    wanted = Config(init_text="movie review", init_ids=ids)
    assert prompt_tuning.resolve(Config(), toy_tokenizer, "movie review") == wanted
    assert prompt_tuning.resolve(Config(init_text="movie review"), toy_tokenizer, "else") == wanted
    assert prompt_tuning.resolve(Config(init_ids=(3,)), toy_tokenizer, "else") == Config(init_ids=(3,))
    assert prompt_tuning.resolve(Config(init="random"), toy_tokenizer, "else") == Config(init="random")


def test_resolve_leaves_a_begin_token_to_the_sequence_itself() -> None:
    def tokenizer(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [1] * add_special_tokens + [40, 50]}

    assert prompt_tuning.resolve(Config(), tokenizer, "a b").init_ids == (40, 50)


def test_vocabulary_draws_rows_of_the_embedding(toy_llama: Any) -> None:
    rows = {tuple(row.tolist()) for row in toy_llama.get_input_embeddings().weight}
    found = [tuple(row.tolist()) for row in vectors(toy_llama, Config(num_virtual_tokens=50, init="vocabulary"))]
    assert set(found) <= rows
    assert len(set(found)) > 25


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_noise_is_as_large_as_what_the_embedding_returns(kind: str, toy_model: Callable[..., Any]) -> None:
    model = toy_model(kind)
    usual = model.get_input_embeddings()(torch.arange(400)).std()
    assert vectors(model, Config(num_virtual_tokens=200, init="random")).std() == pytest.approx(usual.item(), rel=0.1)


def test_ids_count_on_from_the_embeddings_rows(toy_llama: Any) -> None:
    vectors(toy_llama, Config(num_virtual_tokens=3, init="random"))
    assert prompt_tuning.prefix_tokens(toy_llama) == (400, 401, 402)


def test_the_embedding_mixes_real_and_virtual_tokens(toy_llama: Any) -> None:
    rows = toy_llama.get_input_embeddings().weight
    virtual = vectors(toy_llama, Config(num_virtual_tokens=3, init="random"))
    embedded = toy_llama.get_input_embeddings()(torch.tensor([[401, 7], [399, 400]]))
    assert torch.equal(
        embedded, torch.stack([torch.stack([virtual[1], rows[7]]), torch.stack([rows[399], virtual[0]])])
    )


def test_a_token_beyond_the_virtual_ones_is_an_error(toy_llama: Any) -> None:
    vectors(toy_llama, Config(num_virtual_tokens=3, init="random"))
    with pytest.raises(IndexError):
        toy_llama(input_ids=torch.tensor([[403]]))


def test_a_tied_head_stays_tied_to_the_models_own_rows(toy_llama: Any) -> None:
    head = toy_llama.lm_head.weight
    vectors(toy_llama, Config(num_virtual_tokens=3, init="random"))
    assert toy_llama.lm_head.weight is head is toy_llama.get_input_embeddings().weight
    assert toy_llama(input_ids=torch.tensor([[401, 7]])).logits.shape == (1, 2, 400)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(), "init: text has no text to start from"),
        (Config(init_ids=(3, 400)), "got 3 to 400; expected ids of this model's tokens, 0 to 399"),
        (Config(init_ids=(-1, 3)), "got -1 to 3"),
    ],
)
def test_a_start_that_cannot_be_is_a_mistake(config: Config, message: str, toy_llama: Any) -> None:
    embedding = toy_llama.get_input_embeddings()
    with pytest.raises(Mistake) as caught:
        prompt_tuning.attach(toy_llama, config)
    assert message in str(caught.value)
    assert toy_llama.get_input_embeddings() is embedding


def test_an_encoder_decoder_prompt_of_peft_is_refused() -> None:
    settings = {"num_virtual_tokens": 3, "num_transformer_submodules": 2}
    with pytest.raises(Mistake, match="num_transformer_submodules"):
        prompt_tuning.from_peft(settings, {"prompt_embeddings"})
    with pytest.raises(Mistake, match="no prompt_embeddings"):
        prompt_tuning.from_peft(settings | {"num_transformer_submodules": 1}, {"other"})
