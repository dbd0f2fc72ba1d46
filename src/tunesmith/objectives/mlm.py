"""Masked-language modelling: an encoder learns to tell hidden words from what stands on both sides of them.

As BERT was made (arXiv 1810.04805, section 3.1): 15 % of the tokens are to be told; of these 80 % are shown as [MASK],
10 % as a random token, and 10 % as they are. Special tokens are neither hidden nor shown in a token's place. Hidden
anew for every row in every epoch. For further pre-training of BERT and its kin on one's own corpus.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import Tensor

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.objectives._cross_entropy import cross_entropy
from tunesmith.objectives._terms import Batch, Terms

NEEDS = frozenset({"logprobs"})
KINDS = ("encoder",)
HEAD = "masked"


class Config(Section):
    """The keys of ``objective: {name: mlm}``."""

    mlm_probability: float = Field(0.15, gt=0, le=1, description="share of the tokens that are to be told")
    mask_replace_prob: float = Field(0.8, ge=0, le=1, description="share of these that are shown as the mask token")
    random_replace_prob: float = Field(0.1, ge=0, le=1, description="share of these that are shown as a random token")
    mask_id: int = Field(-1, description="id shown for a hidden token; default: the tokenizer's mask token")
    special_ids: tuple[int, ...] = Field((), description="ids never hidden; default: the tokenizer's special tokens")
    vocab_size: int = Field(0, ge=0, description="random tokens have ids below this; default: the tokenizer's size")


def resolve(config: Config, tokenizer: Any) -> Config:
    """Fill in the tokenizer's mask, special tokens and size. Raises Mistake when it has no mask token."""
    if config.mask_replace_prob + config.random_replace_prob > 1:
        raise Mistake(
            f"objective: mlm: mask_replace_prob {config.mask_replace_prob:g} and random_replace_prob "
            f"{config.random_replace_prob:g} are more than 1 together; expected 1 at most; type 0.8 and 0.1"
        )
    mask = tokenizer.mask_token_id if config.mask_id < 0 else config.mask_id
    if mask is None:
        raise Mistake(
            f"objective: mlm: {tokenizer.name_or_path} has no mask token; expected a BERT or one like it; "
            "choose another model, or give objective.mask_id"
        )
    special = config.special_ids or tuple(sorted({*tokenizer.all_special_ids, mask}))
    size = config.vocab_size or len(tokenizer)
    return config.model_copy(update={"mask_id": int(mask), "special_ids": special, "vocab_size": size})


def rows(row: Encoded, config: Config, seed: int) -> Encoded:
    """The row with some of its tokens hidden, and these as its labels; one at least where there is an ordinary one."""
    draw, special = random.Random(seed), frozenset(config.special_ids)
    ordinary = [place for place, token in enumerate(row.ids) if token not in special]
    count = min(max(1, round(len(ordinary) * config.mlm_probability)), len(ordinary))
    shown, labels = list(row.ids), []
    for place in sorted(draw.sample(ordinary, count)):
        labels.append((place, row.ids[place]))
        shown[place] = _instead(row.ids[place], config, special, draw)
    return replace(row, ids=tuple(shown), weights=(1.0,) * count, labels=tuple(labels))


def _instead(token: int, config: Config, special: frozenset[int], draw: random.Random) -> int:
    """What is shown where `token` is to be told."""
    chance = draw.random()
    if chance < config.mask_replace_prob:
        return config.mask_id
    if chance >= config.mask_replace_prob + config.random_replace_prob:
        return token
    while (other := draw.randrange(config.vocab_size)) in special:
        pass
    return other


def loss(terms: Terms, batch: Batch, config: Config) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Sum and count of the cross-entropy of what was hidden, and `token_accuracy` summed alike where it is known."""
    return cross_entropy(terms, batch)
