"""What every objective with right tokens comes down to: the weighted cross-entropy of the targets."""

from __future__ import annotations

from torch import Tensor

from tunesmith.objectives._terms import Batch, Terms


def cross_entropy(terms: Terms, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Sum and count of the cross-entropy over the targets, and `token_accuracy` summed alike where it is known."""
    weights = batch.weights
    metrics = {} if terms.correct is None else {"token_accuracy": (weights * terms.correct).sum()}
    return -(weights * terms.logprobs).sum(), weights.sum(), metrics
