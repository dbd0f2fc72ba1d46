"""RMSNorm as a node of the graph of its own, where it is not part of a product's (`engine.products`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunesmith.engine import elementwise


def normed(x: Tensor, norm: Any, dtype: torch.dtype) -> Tensor:
    """RMSNorm of `x [tokens, hidden]` (float32), computed in float32 and given as `dtype` (arXiv 1910.07467, eq. 4)."""
    if not torch.is_grad_enabled():
        return elementwise.norm(x, norm.weight, norm.variance_epsilon, dtype)[0]
    out: Tensor = _Norm.apply(x, norm.weight, norm.variance_epsilon, dtype)  # type: ignore[no-untyped-call]  # of torch
    return out


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        out, scale = elementwise.norm(x, weight, epsilon, dtype)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        return *elementwise.norm_back(x, weight, scale, grad, ctx.needs_input_grad[1]), None, None
