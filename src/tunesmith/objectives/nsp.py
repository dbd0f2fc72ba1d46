"""Next-sentence prediction: an encoder learns whether one piece of text goes on from another.

As BERT was made (arXiv 1810.04805, section 3.1): of pairs of pieces half are consecutive (label 0) and half have a
second piece from another document (label 1). Which half a pair is in is drawn anew for every row in every epoch; each
second piece is also another pair's wrong one, so that none is told by itself.
"""

from __future__ import annotations

import random
from dataclasses import replace

from torch import Tensor

from tunesmith.core.config import Section
from tunesmith.core.records import Encoded
from tunesmith.objectives._cross_entropy import cross_entropy
from tunesmith.objectives._terms import Batch, Terms

NEEDS = frozenset({"logprobs"})
KINDS = ("encoder",)
HEAD = "next"
METRIC = "accuracy"

NEXT, OTHER = 0, 1
"""The labels of transformers' own head."""


class Config(Section):
    """``objective: {name: nsp}`` has no keys of its own."""


def rows(row: Encoded, config: Config, seed: int) -> Encoded:
    """The pair as it is, or with its second piece replaced by ``row.meta["other"]``, which is as long."""
    if random.Random(seed).random() < 0.5:
        return replace(row, weights=(1.0,), labels=((0, NEXT),))
    other = tuple(row.meta["other"])
    ids = (*row.ids[: row.second], *other, *row.ids[row.second + len(other) :])
    return replace(row, ids=ids, weights=(1.0,), labels=((0, OTHER),))


def loss(terms: Terms, batch: Batch, config: Config) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Sum and count of the cross-entropy of the pairs' labels, and `pair_accuracy` summed alike where it is known."""
    total, count, metrics = cross_entropy(terms, batch)
    return total, count, {name.replace("token", "pair"): value for name, value in metrics.items()}
