"""Log-probabilities of labels straight from the last hidden states: logits exist for a block of positions at a time.

With `z = h Wᵀ`, ``log p(y) = z_y − logsumexp(z)`` and its gradient is ``dh = g (W_y − Σ_v p_v W_v)``. The sum is made
in the forward pass, while the block's probabilities are at hand, so nothing of the size of the vocabulary is kept and
backward is a scaling. The work is that of the usual way; the memory is that of one block.

Where the head itself trains, ``dW = Σ g (1_y − p) hᵀ`` needs the probabilities when `g` is known, so backward makes
them again, a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.engine import elementwise
from tunesmith.engine.linear import Linear

BLOCK = 256
"""Positions whose logits exist at a time."""
TOKENS = 8192
"""Rows of a head whose gradient is computed at a time, beside the gradient of all."""


def fits(head: Any) -> bool:
    """Whether a head is a plain layer without bias, frozen or not."""
    return type(head) is Linear and getattr(head, "bias", None) is None


def label_logprobs(hidden: Tensor, head: Any, at: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability (nats, `[N]` float32) of each label, and whether it is the likeliest token (`[N]` bool).

    `hidden [P, hidden]` float32, `head.weight [vocabulary, hidden]`; target `i` is `labels[i]` at position `at[i]` of
    `P`.
    """
    made = _LabelLogprobs.apply(hidden, head.weight, head.compute, at, labels)  # type: ignore[no-untyped-call]  # torch
    found: tuple[Tensor, Tensor] = made
    return found


class _LabelLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, own: Tensor, dtype: torch.dtype, at: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        weight = own.to(dtype)
        logprobs = torch.empty(len(at), dtype=torch.float32, device=hidden.device)
        correct = torch.empty(len(at), dtype=torch.bool, device=hidden.device)
        learns = ctx.needs_input_grad[1]
        expected = torch.empty_like(hidden) if ctx.needs_input_grad[0] and not learns else None
        for rows, mine, inside in _blocks(len(hidden), at):
            scores = functional.linear(hidden[rows].to(dtype), weight)
            wanted = scores[inside, labels[mine]].float()
            normaliser, likeliest = elementwise.likelihoods(scores, shares=expected is not None)
            logprobs[mine] = wanted - normaliser[inside]
            correct[mine] = likeliest[inside] == labels[mine]
            if expected is not None:
                expected[rows] = torch.mm(scores, weight)
        ctx.mark_non_differentiable(correct)
        ctx.dtype = dtype
        ctx.save_for_backward(hidden if learns else None, expected, own, at, labels)
        return logprobs, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, expected, own, at, labels = ctx.saved_tensors
        given = hidden if expected is None else expected
        sums = torch.zeros(len(given), dtype=torch.float32, device=grad.device).index_add_(0, at, grad)
        if expected is None:
            return *_learned(hidden, own, ctx.dtype, sums, grad, at, labels), None, None, None
        back = expected * -sums.unsqueeze(1)
        back.index_add_(0, at, functional.embedding(labels, own).float() * grad.unsqueeze(1))
        return back, None, None, None, None


def _learned(
    hidden: Tensor, own: Tensor, dtype: torch.dtype, sums: Tensor, grad: Tensor, at: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the hidden states and of a head that trains: with ``dz = g (1_y − p)``, dh = dz W and dW = dzᵀ h."""
    weight, back, learned = own.to(dtype), torch.empty_like(hidden), torch.zeros_like(own)
    for rows, mine, inside in _blocks(len(hidden), at):
        block = hidden[rows].to(dtype)
        shares = torch.softmax(functional.linear(block, weight).float(), dim=-1).mul_(-sums[rows].unsqueeze(1))
        shares.index_put_((inside, labels[mine]), grad[mine], accumulate=True)
        through = shares.to(dtype)
        back[rows] = torch.mm(through, weight)
        for part, into in zip(torch.split(through, TOKENS, 1), torch.split(learned, TOKENS), strict=True):
            into += torch.mm(part.T, block)
    return back, learned


def _blocks(positions: int, at: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of positions: which, the targets that lie there, and where in the block each of those lies."""
    for start in range(0, positions, BLOCK):
        mine = torch.nonzero((at >= start) & (at < start + BLOCK)).squeeze(1)
        yield slice(start, start + BLOCK), mine, at[mine] - start
