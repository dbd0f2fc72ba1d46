"""Supervised fine-tuning: make the wanted answers probable.

The sum is the weighted cross-entropy ``-Σ w log p(label)`` in nats, the count ``Σ w``: every trained token counts
alike, whatever the length of its row.
"""

from __future__ import annotations

from torch import Tensor

from tunesmith.core.config import Section
from tunesmith.objectives._cross_entropy import cross_entropy
from tunesmith.objectives._terms import Batch, Terms

NEEDS = frozenset({"logprobs"})


class Config(Section):
    """``objective: {name: sft}`` has no keys of its own."""


def loss(terms: Terms, batch: Batch, config: Config) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Sum and count of the cross-entropy over the targets, and `token_accuracy` summed alike where it is known."""
    return cross_entropy(terms, batch)
