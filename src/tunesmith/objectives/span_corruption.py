"""Span corruption: short spans are hidden from a text-to-text model, which learns to write them down.

As T5 was made (arXiv 1910.10683, section 3.1.4): 15 % of the tokens, in spans of 3 on average, are each replaced by a
sentinel in the source; the answer names each sentinel and what it hides, then one sentinel more. Hidden anew for every
row in every epoch. For further pre-training of T5 on one's own corpus.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import count, pairwise, takewhile
from typing import Any

from pydantic import Field
from torch import Tensor

from tunesmith.core.config import Section
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.objectives._cross_entropy import cross_entropy
from tunesmith.objectives._terms import Batch, Terms

NEEDS = frozenset({"logprobs"})
KINDS = ("encoder-decoder",)


class Config(Section):
    """The keys of ``objective: {name: span_corruption}``."""

    noise_density: float = Field(0.15, gt=0, lt=1, description="share of the tokens that are hidden")
    mean_noise_span_length: float = Field(3.0, ge=1, description="tokens in a hidden span, on average")
    sentinels: tuple[int, ...] = Field((), description="ids standing for spans; default: the tokenizer's own")
    end_id: int = Field(-1, description="id that closes source and answer; default: the tokenizer's end token")


def resolve(config: Config, tokenizer: Any) -> Config:
    """Fill in the tokenizer's sentinels and end token. Raises Mistake when it has no sentinels."""
    known = tokenizer.get_vocab()
    names = takewhile(known.__contains__, (f"<extra_id_{number}>" for number in count()))
    sentinels = config.sentinels or tuple(known[name] for name in names)
    if len(sentinels) < 2:
        raise Mistake(
            f"objective: span_corruption: {tokenizer.name_or_path} has no sentinel tokens (<extra_id_0> …); "
            "expected a T5; type --objective sft, or give objective.sentinels"
        )
    end = tokenizer.eos_token_id if config.end_id < 0 else config.end_id
    return config.model_copy(update={"sentinels": sentinels, "end_id": int(end)})


def rows(row: Encoded, config: Config, seed: int) -> Encoded:
    """The row with spans hidden: source, end, answer, end; a row of one token is left without an answer."""
    tokens = [token for token in row.ids if token != config.end_id]
    hidden = min(max(round(len(tokens) * config.noise_density), 1), len(tokens) - 1)
    spans = min(max(round(hidden / config.mean_noise_span_length), 1), hidden, len(tokens) - hidden)
    if hidden < 1:
        return replace(row, ids=(*tokens, config.end_id), weights=(0.0,) * (len(tokens) + 1))
    if spans >= len(config.sentinels):
        raise Mistake(
            f"objective: span_corruption: {spans} spans to hide in a row, and {len(config.sentinels)} sentinels; "
            "lower max_length"
        )
    draw = random.Random(seed)
    source, answer = list[int](), list[int]()
    kept, gone = _parts(draw, len(tokens) - hidden, spans), _parts(draw, hidden, spans)
    place = 0
    for sentinel, shown, lost in zip(config.sentinels, kept, gone, strict=False):
        source += [*tokens[place : place + shown], sentinel]
        answer += [sentinel, *tokens[place + shown : place + shown + lost]]
        place += shown + lost
    source.append(config.end_id)
    answer += [config.sentinels[spans], config.end_id]
    return replace(row, ids=(*source, *answer), weights=(0.0,) * len(source) + (1.0,) * len(answer))


def _parts(draw: random.Random, total: int, parts: int) -> list[int]:
    """`total` divided into so many parts of one at least, all divisions equally likely."""
    cuts = [0, *sorted(draw.sample(range(1, total), parts - 1)), total]
    return [after - before for before, after in pairwise(cuts)]


def loss(terms: Terms, batch: Batch, config: Config) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Sum and count of the cross-entropy of what was hidden, and `token_accuracy` summed alike where it is known."""
    return cross_entropy(terms, batch)
