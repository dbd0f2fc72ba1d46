"""Models from nothing: small shapes by name, a tokenizer trained on the person's texts, random weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tunesmith.core.errors import Mistake, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END = "<|endoftext|>"
"""The token that stands before and behind every text, and fills up."""
FEWEST = 257
"""Tokens of the smallest vocabulary: the 256 bytes and the end."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of Llama's type; `parameters` counts tied weights once, with `vocabulary` tokens."""

    name: str
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    context: int
    vocabulary: int
    parameters: int
    learning_rate: float


@cache
def shapes() -> dict[str, Shape]:
    """Every shape by its name, in order of size."""
    rows = yaml.safe_load(Path(__file__).with_name("shapes.yaml").read_text(encoding="utf-8"))
    return {row["name"]: Shape(**row) for row in rows}


def shape(name: str) -> Shape:
    """The shape called `name`. Raises Mistake when there is none."""
    if name not in shapes():
        raise Mistake(f"shape: there is no '{name}'; {nearest(name, shapes())}")
    return shapes()[name]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE of at most `vocab_size` tokens, as GPT-2's (Radford et al. 2019): any text comes back unchanged.

    A corpus too small for so many gives fewer. Raises Mistake below the 256 bytes and the end token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < FEWEST:
        raise Mistake(f"vocab_size: got {vocab_size}; expected {FEWEST} at least, one for each byte and the end")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has none
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, unk_token=END, clean_up_tokenization_spaces=False
    )
    return made


def build(shape: Shape, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A Llama of this shape for this tokenizer, its weights drawn from `seed`, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    end = tokenizer.eos_token_id
    config: Any = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        # No padding token: transformers would hold its row of the embedding, which is the end's, at zero.
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = LlamaForCausalLM(config)
    return model
