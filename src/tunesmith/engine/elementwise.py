"""The steps of a decoder layer between its products: by our kernels, each in one pass over memory, or else by torch.

Rows are tokens. What torch needs several passes for is made a block of rows at a time, so that it stays in the
processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.engine import native


@dataclass(frozen=True, slots=True)
class Adapted:
    """What adapters add to a product, not multiplied yet: `low [rows, ranks]` times `up [width, ranks]`.

    `pieces [n, 4]` say which columns (from, to) and which ranks (from, to) go together; elsewhere `up` is 0.
    """

    low: Tensor
    up: Tensor
    pieces: Tensor

    @property
    def given(self) -> tuple[Tensor | float, ...]:
        """As kernels take it."""
        return self.low, self.up, self.pieces, len(self.pieces), self.low.shape[1]

    def whole(self) -> Tensor:
        """`[rows, width]`, at the precision of products."""
        return functional.linear(self.low, self.up)


ROWS = 128
"""Rows in a block: a block of a layer's widest activations in float32 is a few MB."""


def norm(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """RMSNorm ``x / rms(x) · weight`` as `dtype`, and ``1 / rms(x) [rows, 1]``, of `x [rows, width]` (float32)."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    kernels = native.of(x.device, dtype)
    if kernels is not None:
        scale = torch.empty((len(x), 1), device=x.device)
        kernels.call("norm", x, weight, epsilon, out, scale, *x.shape)
        return out, scale
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    for rows in _blocks(x):
        out[rows] = (x[rows] * scale[rows]).mul_(weight)
    return out, scale


def norm_back(
    x: Tensor, weight: Tensor, scale: Tensor, grad: Tensor, learns: bool, beside: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of `norm`'s input, with what reaches it from elsewhere added, and, if it `learns`, of its weight.

    With ``x̂ = x / rms(x)``: ``dx = (g w − x̂ mean(g w x̂)) / rms(x)`` and ``dw = Σ g x̂``.
    """
    back, learned = torch.empty_like(x), torch.zeros_like(weight) if learns else None
    kernels = native.of(x.device, grad.dtype)
    if kernels is not None:
        grad = grad.contiguous()
        kernels.call("norm_back", x, weight, scale, grad, beside, back, *x.shape)
        if learned is not None:
            kernels.call("norm_learned", x, scale, grad, learned, *x.shape)
        return back, learned
    for rows in _blocks(x):
        unit, g = x[rows] * scale[rows], grad[rows].float()
        if learned is not None:
            learned += (g * unit).sum(0)
        g = g * weight
        torch.sub(g, unit * (g * unit).mean(-1, keepdim=True), out=back[rows]).mul_(scale[rows])
        if beside is not None:
            back[rows] += beside[rows]
    return back, learned


def total(
    product: Tensor,
    delta: Tensor | Adapted | None = None,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``product + delta + bias + residual`` summed in float32, `[rows, width]`; `bias [width]`."""
    kernels = native.of(product.device, product.dtype)
    if kernels is not None and isinstance(delta, Adapted) and bias is None:
        out = torch.empty(product.shape, device=product.device)
        kernels.call("total_adapted", product, *delta.given, residual, out, *product.shape)
        return out
    delta = delta.whole() if isinstance(delta, Adapted) else delta
    if kernels is not None:
        out = torch.empty(product.shape, device=product.device)
        kernels.call("total", product, delta, bias, residual, out, *product.shape)
        return out
    out = product.float() if residual is None else residual + product
    if delta is not None:
        out = out.add_(delta) if out is not product else out + delta
    return out if bias is None else out + bias


def turn(joined: Tensor, cos: Tensor, sin: Tensor, heads: int, dtype: torch.dtype, *, back: bool = False) -> Tensor:
    """`joined [rows, width]` (float32) with its first `heads` turned by their positions, or turned `back`.

    `cos` and `sin [rows, size]`, of which both halves are the same (arXiv 2104.09864, eq. 34). Products are at `dtype`.
    """
    size, sign, out = cos.shape[-1], -1.0 if back else 1.0, torch.empty_like(joined)
    kernels = native.of(joined.device, dtype)
    if kernels is not None:
        kernels.call("turn", joined, cos, sin, sign, out, len(joined), heads, size, joined.shape[1])
        return out
    out.copy_(joined)
    c, s = cos[:, None, : size // 2], sign * sin[:, None, : size // 2]
    first, second = out.view(len(out), -1, size)[:, :heads].chunk(2, dim=-1)
    turned = (first * c).addcmul_(second, s, value=-1)
    second.mul_(c).addcmul_(first, s)
    first.copy_(turned)
    return out


def gated(both: Tensor, delta: Tensor | Adapted | None = None) -> Tensor:
    """``silu(gate) ∘ up`` of `both [rows, 2 · width]`, gate and up side by side (SwiGLU, arXiv 2002.05202, eq. 5).

    A `delta` is added to both first, and kept there.
    """
    width = both.shape[1] // 2
    out = torch.empty((len(both), width), dtype=both.dtype, device=both.device)
    kernels = native.of(both.device, both.dtype)
    if kernels is not None and isinstance(delta, Adapted):
        kernels.call("gated_adapted", both, *delta.given, out, *out.shape)
        return out
    delta = delta.whole() if isinstance(delta, Adapted) else delta
    if kernels is not None:
        kernels.call("gated", both, delta, out, *out.shape)
        return out
    for rows in _blocks(both):
        block = both[rows].float()
        if delta is not None:
            both[rows] = block.add_(delta[rows])
        out[rows] = functional.silu(block[:, :width]).mul_(block[:, width:])
    return out


def gated_back(both: Tensor, grad: Tensor) -> Tensor:
    """The gradient of `both`; with ``σ = sigmoid(g)``: ``dg = d ∘ u ∘ (σ + g σ (1 − σ))``, ``du = d ∘ g σ``."""
    back, width = torch.empty_like(both), both.shape[1] // 2
    kernels = native.of(both.device, both.dtype)
    if kernels is not None:
        kernels.call("gated_back", both, grad.contiguous(), back, len(both), width)
        return back
    for rows in _blocks(both):
        gate, up = torch.split(both[rows], width, dim=1)
        torch.mul(functional.silu(gate), grad[rows], out=back[rows, width:])
        torch.ops.aten.silu_backward.grad_input(grad[rows] * up, gate, grad_input=back[rows, :width])
    return back


def likelihoods(scores: Tensor, shares: bool) -> tuple[Tensor, Tensor]:
    """Of each row of `scores [rows, width]` the logarithm of the sum of ``e^score`` (float32), and the highest's place.

    With `shares` the row's probabilities take the place of its scores.
    """
    kernels = native.of(scores.device, scores.dtype)
    if kernels is not None:
        normaliser = torch.empty(len(scores), device=scores.device)
        likeliest = torch.empty(len(scores), dtype=torch.long, device=scores.device)
        kernels.call("likelihoods", scores, normaliser, likeliest, *scores.shape, shares)
        return normaliser, likeliest
    wide = scores.float()
    normaliser, likeliest = torch.logsumexp(wide, dim=-1), wide.argmax(-1)
    if shares:
        scores.copy_((wide - normaliser.unsqueeze(1)).exp_())
    return normaliser, likeliest


def _blocks(x: Tensor) -> Iterator[slice]:
    """The rows of `x` a block at a time; all at once where there is no cache to stay in."""
    step = ROWS if x.device.type == "cpu" else max(1, len(x))
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))
