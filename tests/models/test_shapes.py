from __future__ import annotations

import pytest
import torch

from tunesmith.core.errors import Mistake
from tunesmith.models.shapes import END, build, shape, shapes, train_tokenizer

TEXTS = ["Once upon a time there was a cat.", "Einmal war ein Kätzchen, 猫!", "  two  spaces\n\tand a tab"] * 5


def test_shapes_grow_and_have_the_parameters_they_say() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    for one in shapes().values():
        keys = {"hidden_size": one.hidden, "intermediate_size": one.intermediate, "num_hidden_layers": one.layers}
        keys |= {"num_attention_heads": one.heads, "num_key_value_heads": one.key_value_heads}
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(vocab_size=one.vocabulary, tie_word_embeddings=True, **keys))
        assert model.num_parameters() == one.parameters, one.name
    assert list(shapes()) == sorted(shapes(), key=lambda name: shapes()[name].parameters)


def test_any_text_comes_back_from_the_tokenizer() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    assert len(tokenizer) == 300
    for text in (*TEXTS, "never seen: Ω≈ç√ 😀"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer(END)["input_ids"] == [tokenizer.eos_token_id]


def test_a_small_corpus_gives_a_small_vocabulary_and_too_small_a_one_is_refused() -> None:
    assert 257 < len(train_tokenizer(["a bit of text"], 4000)) < 300
    with pytest.raises(Mistake, match="vocab_size: got 200; expected 257 at least"):
        train_tokenizer(TEXTS, 200)


def test_weights_follow_from_the_seed_and_draw_no_random_numbers_of_others() -> None:
    tokenizer = train_tokenizer(TEXTS, 280)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again, other = (build(shape("tiny"), tokenizer, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    assert first["model.embed_tokens.weight"].abs().sum(1).min() > 0


def test_a_misspelt_shape_is_told() -> None:
    with pytest.raises(Mistake, match="there is no 'tinny'; did you mean 'tiny'"):
        shape("tinny")
