"""Log-probabilities of labels straight from the last hidden states: logits exist for a block of positions at a time.

With `z = h Wᵀ`, ``log p(y) = z_y − logsumexp(z)`` and its gradient is ``dh = g (W_y − Σ_v p_v W_v)``. The sum is made
in the forward pass, while the block's probabilities are at hand, so nothing of the size of the vocabulary is kept and
backward is a scaling. The work is that of the usual way; the memory is that of one block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.engine.linear import Linear

BLOCK = 256
"""Positions whose logits exist at a time."""


def fits(head: Any) -> bool:
    """Whether a head is a plain frozen layer, whose gradient is known beforehand."""
    return type(head) is Linear and getattr(head, "bias", None) is None and not head.weight.requires_grad


def label_logprobs(hidden: Tensor, weight: Tensor, at: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability (nats, `[N]` float32) of each label, and whether it is the likeliest token (`[N]` bool).

    `hidden [P, hidden]` float32, `weight [vocabulary, hidden]`; target `i` is `labels[i]` at position `at[i]` of `P`.
    """
    found: tuple[Tensor, Tensor] = _LabelLogprobs.apply(hidden, weight, at, labels)  # type: ignore[no-untyped-call]  # torch
    return found


class _LabelLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, at: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(at), dtype=torch.float32, device=hidden.device)
        correct = torch.empty(len(at), dtype=torch.bool, device=hidden.device)
        expected = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), BLOCK):
            block = hidden[start : start + BLOCK].to(weight.dtype)
            scores = functional.linear(block, weight).float()
            normaliser = torch.logsumexp(scores, dim=-1)
            mine = torch.nonzero((at >= start) & (at < start + BLOCK)).squeeze(1)
            own = at[mine] - start
            logprobs[mine] = scores[own, labels[mine]] - normaliser[own]
            correct[mine] = scores.argmax(-1)[own] == labels[mine]
            if expected is not None:
                shares = scores.sub_(normaliser.unsqueeze(1)).exp_().to(weight.dtype)
                expected[start : start + BLOCK] = torch.mm(shares, weight)
        ctx.mark_non_differentiable(correct)
        ctx.save_for_backward(expected, weight, at, labels)
        return logprobs, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        expected, weight, at, labels = ctx.saved_tensors
        sums = torch.zeros(len(expected), dtype=torch.float32, device=grad.device).index_add_(0, at, grad)
        back = expected * -sums.unsqueeze(1)
        back.index_add_(0, at, functional.embedding(labels, weight).float() * grad.unsqueeze(1))
        return back, None, None, None
