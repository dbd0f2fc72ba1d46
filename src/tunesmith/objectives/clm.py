"""Causal language modelling: every token is learned from those before it, whatever the task marks as wanted.

``-Σ w log p(x_i | x_<i)`` over all tokens but the first, which nothing stands before. For further pre-training on
one's own corpus; with task `language_modelling`, whose documents are wanted whole, the same as `sft`.
"""

from __future__ import annotations

from dataclasses import replace

from tunesmith.core.config import Section
from tunesmith.core.records import Encoded
from tunesmith.objectives import sft

NEEDS = sft.NEEDS
KINDS = ("decoder",)


class Config(Section):
    """``objective: {name: clm}`` has no keys of its own."""


def rows(row: Encoded, config: Config, seed: int) -> Encoded:
    """The row with every token trained but the first."""
    return replace(row, weights=(0.0, *([1.0] * (len(row.ids) - 1))))


loss = sft.loss
