"""The products of a decoder layer, each one node of the graph that keeps only what its backward pass needs.

Layers that read the same input (queries, keys and values; gate and up) are one product, their adapters' A matrices side
by side. With frozen weights `W` and an adapter of rank `r`, ``y = x Wᵀ + s (x Aᵀ) Bᵀ`` (LoRA, arXiv 2106.09685, eq. 3):
the products run at the weights' precision, the sum is float32, since a tiny delta added in bfloat16 would be rounded
away. Backward, with `g` the gradient of `y`: ``dx = g W + s (g B) A``, ``dB = s gᵀ (x Aᵀ)``, ``dA = s (g B)ᵀ x``. Kept
is ``x Aᵀ [tokens, r]`` at product precision; no output is, nor an `x` that a norm or a gate makes: made once more, it
takes a hundredth of a layer's time and would be a third of its memory. Weights that train themselves are rounded to
product precision for the product alone, in the forward and again in the backward pass, and ``dW = gᵀ x``.
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
from tunesmith.engine.norms import normed
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


def parallel(x: Tensor, norm: Any, dtype: torch.dtype, *layers: Any) -> Tensor:
    """The outputs of layers over ``norm(x)``, `x [tokens, hidden]`, side by side: `[tokens, sum of outs]`, float32."""
    found = _product(layers)
    if found is None:
        wide = normed(x, norm, dtype).float()
        return torch.cat([layer(wide) for layer in layers], dim=-1)
    product, factors = found
    out: Tensor = _Parallel.apply(x, norm.weight, norm.variance_epsilon, product, *factors)  # type: ignore[no-untyped-call]  # of torch
    bias = _bias(product, layers)
    return out if bias is None else out + bias


def onto(residual: Tensor, x: Tensor, layer: Any) -> Tensor:
    """``residual + layer(x)``, `[tokens, hidden]` float32, of `x [tokens, in]`."""
    found = _product([layer])
    if found is None:
        return torch.add(residual, layer(x.float()))
    product, factors = found
    out: Tensor = _Onto.apply(residual, x, product, *factors)  # type: ignore[no-untyped-call]  # of torch
    bias = _plain(layer).bias
    return out if bias is None else torch.add(out, bias)


def mlp(x: Tensor, norm: Any, dtype: torch.dtype, own: Any) -> Tensor:
    """``x + down(act(gate(n)) ∘ up(n))``, ``n = norm(x)``, of `x [tokens, hidden]` (SwiGLU, arXiv 2002.05202)."""
    pair = _product([own.gate_proj, own.up_proj]) if is_silu(own.act_fn) else None
    if pair is None or any(_plain(layer).bias is not None for layer in (own.gate_proj, own.up_proj)):
        wide = normed(x, norm, dtype).float()
        return onto(x, torch.mul(own.act_fn(own.gate_proj(wide)), own.up_proj(wide)).to(dtype), own.down_proj)
    last = _product([own.down_proj])
    products, factors = (pair[0], last[0] if last else None), (*pair[1], *(last[1] if last else ()))
    out: Tensor = _Mlp.apply(x, norm.weight, norm.variance_epsilon, *products, *factors)  # type: ignore[no-untyped-call]  # of torch
    if last is None:
        return onto(x, out, own.down_proj)
    bias = _plain(own.down_proj).bias
    return out if bias is None else torch.add(out, bias)


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

    @property
    def pieces(self) -> Tensor:
        """The places as numbers: columns from and to, ranks from and to, `[layers with adapters, 4]`."""
        found = [(of[0].start, of[0].stop, of[1].start, of[1].stop) for of in self.places if of is not None]
        return torch.tensor(found, dtype=torch.long)


def _beside(product: Product, factors: Factors) -> _Beside | None:
    """The adapters beside a product; None where it has none, or its factors are the weights themselves."""
    return None if product.trains or not _learn(factors) else _Beside(product, factors)


@dataclass(frozen=True, slots=True)
class _Pass:
    """What the backward pass of a product goes by beside tensors."""

    product: Product
    places: Sequence[tuple[slice, slice, float] | None]
    learns: bool


def _forward(
    x: Tensor, product: Product, factors: Factors
) -> tuple[Tensor, elementwise.Adapted | None, _Pass, list[Tensor | None]]:
    """The product alone, what the adapters add to it, and what backward needs beside `x`."""
    beside, delta = _beside(product, factors), None
    kept: list[Tensor | None] = [None, None, None]
    if beside is not None:
        low = functional.linear(x, beside.down)
        delta = elementwise.Adapted(low, beside.up, beside.pieces)
        kept = [low, beside.down, beside.up]
    if product.trains:
        kept += factors
    places = beside.places if beside else [None] * len(product.widths)
    return few.multiply(x, product.matrix(factors)), delta, _Pass(product, places, _learn(factors)), kept


def _backward(
    by: _Pass, x: Tensor | None, grad: Tensor, needed: bool, kept: Sequence[Any]
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Gradients of the product's input, if `needed`, and of its factors; `grad [tokens, sum of widths]` the output's.

    `x` is None where nothing but the input has a gradient.
    """
    (low, down, up, *weights), product = kept, by.product
    grad = grad.to(product.dtype)
    through = torch.mm(grad, product.matrix(weights)) if needed else None
    if x is None:
        return through, [None, None] * len(by.places)
    if product.trains:
        return through, [torch.mm(grad[:, columns].T, x).float() for columns, _ in product.parts]
    back = torch.mm(grad, up)
    if through is not None:
        through.addmm_(back, down)
    downs, ups = torch.mm(back.T, x).float(), torch.mm(grad.T, low)
    found: list[Tensor | None] = []
    for place in by.places:
        if place is None:
            found += [None, None]
        else:
            columns, ranks, strength = place
            found += [downs[ranks], ups[columns, ranks].float() * strength]
    return through, found


class _Parallel(torch.autograd.Function):
    """A product over a norm's output, which is made again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, epsilon: float, product: Product, *factors: Tensor | None
    ) -> Tensor:
        unit, scale = elementwise.norm(x, weight, epsilon, product.dtype)
        out, delta, ctx.by, kept = _forward(unit, product, factors)
        ctx.epsilon = epsilon
        ctx.save_for_backward(x, weight, scale, *kept)
        return elementwise.total(out, delta)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, *kept = ctx.saved_tensors
        unit = _unit(ctx, ctx.by, x, weight)
        through, learned = _backward(ctx.by, unit, grad, any(ctx.needs_input_grad[:2]), kept)
        return *_through_norm(ctx, x, weight, scale, through), None, None, *learned


class _Onto(torch.autograd.Function):
    """A product on top of the residual stream."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, product: Product, *factors: Tensor | None) -> Tensor:
        out, delta, ctx.by, kept = _forward(x, product, factors)
        ctx.save_for_backward(x if ctx.by.learns else None, *kept)
        return elementwise.total(out, delta, residual=residual)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *kept = ctx.saved_tensors
        through, learned = _backward(ctx.by, x, grad, ctx.needs_input_grad[1], kept)
        return grad, through, None, *learned


class _Mlp(torch.autograd.Function):
    """Norm, gate and up, and down on top of the residual stream; without a product of `down`, what that would take.

    Of all between only the outputs of gate and up are kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        epsilon: float,
        pair: Product,
        last: Product | None,
        *factors: Tensor | None,
    ) -> Tensor:
        split = len(pair.widths) * (1 if pair.trains else 2)
        unit, scale = elementwise.norm(x, weight, epsilon, pair.dtype)
        both, delta, ctx.pair, kept = _forward(unit, pair, factors[:split])
        out = elementwise.gated(both, delta)
        ctx.epsilon, ctx.last, ctx.split = epsilon, None, len(kept)
        if last is not None:
            product, delta, ctx.last, more = _forward(out, last, factors[split:])
            kept += more
            out = elementwise.total(product, delta, residual=x)
        ctx.save_for_backward(x, weight, scale, both, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, both, *kept = ctx.saved_tensors
        below = any(ctx.needs_input_grad[:2])
        through: Tensor | None = grad
        last: list[Tensor | None] = []
        if ctx.last is not None:
            active = elementwise.gated(both) if ctx.last.learns else None
            through, last = _backward(ctx.last, active, grad, below or ctx.pair.learns, kept[ctx.split :])
        if through is None:
            return None, None, None, None, None, *[None] * (len(ctx.needs_input_grad) - 5 - len(last)), *last
        pair, unit = elementwise.gated_back(both, through), _unit(ctx, ctx.pair, x, weight)
        through, learned = _backward(ctx.pair, unit, pair, below, kept[: ctx.split])
        beside = grad.contiguous() if ctx.last is not None else None
        return *_through_norm(ctx, x, weight, scale, through, beside), None, None, None, *learned, *last


def _unit(ctx: Any, by: _Pass, x: Tensor, weight: Tensor) -> Tensor | None:
    """A norm's output once more, if anything is learned from it."""
    return elementwise.norm(x, weight, ctx.epsilon, by.product.dtype)[0] if by.learns else None


def _through_norm(
    ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, through: Tensor | None, beside: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a norm's input and weight, a node's first two, from that of its output and what is `beside`."""
    if through is None:
        return None, None
    return elementwise.norm_back(x, weight, scale, through, ctx.needs_input_grad[1], beside)
