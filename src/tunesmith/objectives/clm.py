"""Causal language modelling: every token is learned from those before it, whatever the task marks as wanted.

``-Σ w log p(x_i | x_<i)`` over all tokens but the first, which nothing stands before. For further pre-training on
one's own corpus; with task `language_modelling`, whose documents are wanted whole, the same as `sft`.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from tunesmith.core.config import Section
from tunesmith.core.records import Encoded
from tunesmith.objectives._cross_entropy import cross_entropy
from tunesmith.objectives._terms import Batch, Terms

NEEDS = frozenset({"logprobs"})
KINDS = ("decoder",)


class Config(Section):
    """``objective: {name: clm}`` has no keys of its own."""


def rows(row: Encoded, config: Config, seed: int) -> Encoded:
    """The row with every token trained but the first."""
    return replace(row, weights=(0.0, *([1.0] * (len(row.ids) - 1))))


def loss(terms: Terms, batch: Batch, config: Config) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Sum and count of the cross-entropy, and `token_accuracy` summed alike where it is known."""
    return cross_entropy(terms, batch)
