"""The products of a decoder layer, each one node of the graph that keeps only what its backward pass needs.

Layers that read the same input (queries, keys and values; gate and up) are one product, their adapters' A matrices side
by side. With frozen weights `W` and an adapter of rank `r`, ``y = x Wᵀ + s (x Aᵀ) Bᵀ`` (LoRA, arXiv 2106.09685, eq. 3):
the products run at the weights' precision, the sum is float32, since a tiny delta added in bfloat16 would be rounded
away. Backward, with `g` the gradient of `y`: ``dx = g W + s (g B) A``, ``dB = s gᵀ (x Aᵀ)``, ``dA = s (g B)ᵀ x``. Kept
are `x` and ``x Aᵀ [tokens, r]`` at product precision; no output is. Weights that train themselves are rounded to that
precision for the product alone, in the forward and again in the backward pass, and ``dW = gᵀ x``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.engine import eighth, elementwise, few
from tunesmith.engine.linear import Linear
from tunesmith.engine.quantized import Quantized
from tunesmith.methods._low_rank import LowRankLinear


@dataclass(frozen=True, slots=True)
class Product:
    """Linear layers over one input, computed at `dtype`, and each one's adapter strength (0 without one).

    `weight` is all of theirs, `[sum of widths, in]`; None where they are `stored` in fewer bits and made whole for each
    product, and where they train and are the product's factors.
    """

    weight: Tensor | None
    dtype: torch.dtype
    widths: tuple[int, ...]
    strengths: tuple[float, ...]
    stored: tuple[Quantized, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether its factors are the weights themselves."""
        return self.weight is None and not self.stored

    def matrix(self, factors: Factors) -> Tensor:
        """The weights of all layers as one matrix, at the precision of the product."""
        if self.weight is not None:
            return self.weight
        if self.stored:
            own = [layer.dequantized(self.dtype) for layer in self.stored]
        else:
            own = [factor.to(self.dtype) for factor in factors if factor is not None]
        return own[0] if len(own) == 1 else torch.cat(own)

    @property
    def parts(self) -> Iterator[tuple[slice, float]]:
        """Columns of the output and strength of each layer."""
        start = 0
        for width, strength in zip(self.widths, self.strengths, strict=True):
            yield slice(start, start + width), strength
            start += width


Factors = Sequence[Tensor | None]
"""A and B of every layer of a product in turn, None where it has no adapter; the weights where those train."""


def parallel(x: Tensor, *layers: Any) -> Tensor:
    """The outputs of layers over the same `x [tokens, in]`, side by side: `[tokens, sum of outs]`, float32."""
    found = _product(layers)
    if found is None:
        return torch.cat([layer(x.float()) for layer in layers], dim=-1)
    product, factors = found
    out: Tensor
    if torch.is_grad_enabled() or any(product.strengths):
        out = _Parallel.apply(x, product, *factors)  # type: ignore[no-untyped-call]  # of torch
    else:
        out = elementwise.total(functional.linear(x, product.matrix(factors)))
    bias = _bias(product, layers)
    return out if bias is None else out + bias


def onto(residual: Tensor, x: Tensor, layer: Any) -> Tensor:
    """``residual + layer(x)``, `[tokens, hidden]` float32, of `x [tokens, in]`."""
    found = _product([layer])
    if found is None:
        return torch.add(residual, layer(x.float()))
    product, factors = found
    out: Tensor
    if torch.is_grad_enabled() or any(product.strengths):
        out = _Onto.apply(residual, x, product, *factors)  # type: ignore[no-untyped-call]  # of torch
    else:
        out = elementwise.total(functional.linear(x, product.matrix(factors)), residual=residual)
    bias = _plain(layer).bias
    return out if bias is None else torch.add(out, bias)


def gated(x: Tensor, gate: Any, up: Any, act: Any) -> Tensor:
    """``act(gate(x)) * up(x)`` of `x [tokens, in]`, at the precision of products (SwiGLU, arXiv 2002.05202, eq. 5)."""
    found = _product([gate, up]) if is_silu(act) else None
    if found is None or any(_plain(layer).bias is not None for layer in (gate, up)):
        wide = x.float()
        return torch.mul(act(gate(wide)), up(wide)).to(x.dtype)
    out: Tensor = _Gated.apply(x, found[0], *found[1])  # type: ignore[no-untyped-call]  # of torch
    return out


@dataclass(frozen=True, slots=True)
class Fixed:
    """A product as it stands while nothing trains: ``x Wᵀ + b`` and what the adapters add, found once for many calls.

    `down [in, ranks]` and `up [ranks, out]` lie transposed; `rounded` is the weight in 8 bits and its scales, for few
    rows.
    """

    product: Product
    bias: Tensor | None
    down: Tensor | None
    up: Tensor | None
    rounded: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Of `x [rows, in]` at product precision, with the `residual` added: `[rows, out]` float32."""
        return elementwise.total(*self.parts(x), bias=self.bias, residual=residual)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The product alone and what the adapters add to it, both at product precision."""
        if self.rounded is not None and len(x) <= eighth.ROWS:
            out = eighth.multiply(x, *self.rounded)
        else:
            out = few.multiply(x, self.product.matrix(()))
        if self.down is None or self.up is None:
            return out, None
        return out, torch.mm(torch.mm(x, self.down), self.up)


def fixed(eighths: eighth.Eighths | None, *layers: Any) -> Fixed | None:
    """The layers side by side as one `Fixed`, None unless each is a frozen linear layer of ours, or LoRA around one.

    With `eighths` the weight's rounded twin comes along.
    """
    found = _product(layers)
    if found is None:
        return None
    product, factors = found
    if product.trains:
        return None
    beside = _beside(product, [None if one is None else one.detach() for one in factors])
    down, up = (beside.down.T.contiguous(), beside.up.T.contiguous()) if beside else (None, None)
    rounded = eighths.of(product.weight) if eighths is not None and product.weight is not None else None
    return Fixed(product, _bias(product, layers), down, up, rounded)


def is_silu(act: nn.Module) -> bool:
    """Whether an activation is ``x sigmoid(x)``: torch's or the one of transformers."""
    return type(act).__name__ in {"SiLU", "SiLUActivation"}


def join(layers: Sequence[Any]) -> None:
    """Lay the frozen weights of linear layers end to end in memory, so that `parallel` takes them as one matrix."""
    weights = [layer.weight for layer in layers if type(layer) is Linear and not layer.weight.requires_grad]
    if len(weights) != len(layers) or _joined(weights) is not None:
        return
    together = torch.cat([weight.data.to(layer.compute) for weight, layer in zip(weights, layers, strict=True)])
    start = 0
    for weight in weights:
        weight.data = together[start : start + len(weight)]
        start += len(weight)


def _product(layers: Sequence[Any]) -> tuple[Product, Factors] | None:
    """The layers as one product, None unless they are linear layers of ours: all to be trained, or all frozen."""
    if all(type(layer) is Linear and layer.weight.requires_grad for layer in layers):
        widths = tuple(len(layer.weight) for layer in layers)
        return Product(None, layers[0].compute, widths, (0.0,) * len(layers)), [layer.weight for layer in layers]
    frozen: list[Any] = []
    factors: list[Tensor | None] = []
    strengths: list[float] = []
    for layer in layers:
        adapter = layer if isinstance(layer, LowRankLinear) else None
        linear = _plain(layer)
        if type(linear) is not Quantized and not (type(linear) is Linear and _is_small(linear)):
            return None
        if adapter is not None and adapter.dropout and adapter.training:
            return None
        frozen.append(linear)
        factors += [None, None] if adapter is None else adapter.factors()
        strengths.append(0.0 if adapter is None else adapter.scaling)
    dtype, widths = frozen[0].compute, tuple(linear.out_features for linear in frozen)
    if all(type(linear) is Quantized for linear in frozen):
        return Product(None, dtype, widths, tuple(strengths), tuple(frozen)), factors
    if any(type(linear) is Quantized for linear in frozen):
        return None
    weights = [linear.weight for linear in frozen]
    weight = weights[0] if len(weights) == 1 else _joined(weights)
    return None if weight is None else (Product(weight.detach(), dtype, widths, tuple(strengths)), factors)


def _is_small(linear: Linear) -> bool:
    """Whether a layer's weight lies frozen as it is multiplied."""
    return not linear.weight.requires_grad and linear.weight.dtype == linear.compute


def _learn(factors: Factors) -> bool:
    """Whether anything beside the product's input has a gradient."""
    return any(factor is not None for factor in factors)


def _bias(product: Product, layers: Sequence[Any]) -> Tensor | None:
    """The layers' biases end to end, float32, zeros where one has none; None where none has one."""
    biases = [_plain(layer).bias for layer in layers]
    if all(bias is None for bias in biases):
        return None
    zeros = (torch.zeros(width, device=_plain(layers[0]).weight.device) for width in product.widths)
    return torch.cat([zero if bias is None else bias.float() for bias, zero in zip(biases, zeros, strict=True)])


def _plain(layer: Any) -> Any:
    """The linear layer inside an adapter, or the layer itself."""
    return layer.base if isinstance(layer, LowRankLinear) else layer


def _joined(weights: Sequence[Tensor]) -> Tensor | None:
    """Matrices that lie end to end in memory as one, None if they do not."""
    for one, next_ in pairwise(weights):
        if one.untyped_storage().data_ptr() != next_.untyped_storage().data_ptr():
            return None
        if one.data_ptr() + one.numel() * one.element_size() != next_.data_ptr():
            return None
    width = weights[0].shape[1]
    return weights[0].detach().as_strided((sum(map(len, weights)), width), (width, 1))


class _Beside:
    """The adapters beside a product, all as one: `down [ranks, in]`, `up [sum of widths, ranks]` with zeros between.

    At the precision of the product; each up-projection holds its layer's strength. `places` says of each layer which
    columns of the output and which ranks are its own, and its strength; None where it has no adapter.
    """

    def __init__(self, product: Product, factors: Factors) -> None:
        self.down = torch.cat([a for a in factors[::2] if a is not None]).to(product.dtype)
        self.up = self.down.new_zeros(sum(product.widths), len(self.down))
        self.places: list[tuple[slice, slice, float] | None] = []
        rank = 0
        for (columns, strength), b in zip(product.parts, factors[1::2], strict=True):
            if b is None:
                self.places.append(None)
                continue
            ranks = slice(rank, rank := rank + b.shape[1])
            self.places.append((columns, ranks, strength))
            self.up[columns, ranks] = b if strength == 1.0 else b * strength


def _beside(product: Product, factors: Factors) -> _Beside | None:
    """The adapters beside a product; None where it has none, or its factors are the weights themselves."""
    return None if product.trains or not _learn(factors) else _Beside(product, factors)


def _forward(
    ctx: Any, x: Tensor, product: Product, factors: Factors
) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
    """The product alone, what the adapters add to it, and what backward needs of both."""
    beside, delta = _beside(product, factors), None
    kept: list[Tensor | None] = [x if _learn(factors) else None, None, None, None]
    if beside is not None:
        low = functional.linear(x, beside.down)
        delta = functional.linear(low, beside.up)
        kept[1:] = low, beside.down, beside.up
    if product.trains:
        kept += factors
    ctx.product, ctx.places = product, beside.places if beside else [None] * len(product.widths)
    return functional.linear(x, product.matrix(factors)), delta, kept


def _backward(ctx: Any, grad: Tensor, needed: bool, kept: Sequence[Any]) -> list[Tensor | None]:
    """Gradients of the product's input, then of its factors; `grad [tokens, sum of widths]` is its output's."""
    (x, low, down, up, *weights), product = kept, ctx.product
    grad = grad.to(product.dtype)
    through = torch.mm(grad, product.matrix(weights)) if needed else None
    if product.trains:
        return [through, *(torch.mm(grad[:, columns].T, x).float() for columns, _ in product.parts)]
    if low is None:
        return [through, *([None, None] * len(ctx.places))]
    back = torch.mm(grad, up)
    if through is not None:
        through.addmm_(back, down)
    downs, ups = torch.mm(back.T, x).float(), torch.mm(grad.T, low)
    found = [through]
    for place in ctx.places:
        if place is None:
            found += [None, None]
        else:
            columns, ranks, strength = place
            found += [downs[ranks], ups[columns, ranks].float() * strength]
    return found


class _Parallel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product, *factors: Tensor | None) -> Tensor:
        out, delta, kept = _forward(ctx, x, product, factors)
        ctx.save_for_backward(*kept)
        return elementwise.total(out, delta)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        through, *learned = _backward(ctx, grad, ctx.needs_input_grad[0], ctx.saved_tensors)
        return through, None, *learned


class _Onto(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, product: Product, *factors: Tensor | None) -> Tensor:
        out, delta, kept = _forward(ctx, x, product, factors)
        ctx.save_for_backward(*kept)
        return elementwise.total(out, delta, residual=residual)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        through, *learned = _backward(ctx, grad, ctx.needs_input_grad[1], ctx.saved_tensors)
        return grad, through, None, *learned


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product, *factors: Tensor | None) -> Tensor:
        both, delta, kept = _forward(ctx, x, product, factors)
        out = elementwise.gated(both, delta)
        ctx.save_for_backward(both, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        both, *kept = ctx.saved_tensors
        pair = elementwise.gated_back(both, grad)
        through, *learned = _backward(ctx, pair, ctx.needs_input_grad[0], kept)
        return through, None, *learned
