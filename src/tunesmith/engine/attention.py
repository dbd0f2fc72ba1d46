"""Attention inside segments, entered through transformers' own `AttentionInterface`.

By our kernels on a CPU (`engine.native`), by torch's flash kernel on a GPU (`engine.varlen`), elsewhere by products
(`engine.tiled`). The softmax is float32 everywhere, and the probabilities are multiplied with the values at the model's
product precision; so are queries with keys by the flash kernel, whose sums are float32, elsewhere those are float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from tunesmith.engine import native, tiled, varlen
from tunesmith.engine.cache import Cache
from tunesmith.engine.native import Kernels
from tunesmith.engine.tiles import Context, expected

NAME = "tunesmith"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: Context | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer that is not ours.

    `query [1, heads, T, size]`, `key` and `value [1, kv heads, T, size]`; returns `[1, T, heads, size]` (float32).
    Raises RuntimeError when the model is called without a packed batch: it was prepared for the engine.
    """
    packed = expected(packed)
    out = attention(
        torch.cat([query[0], key[0], value[0]]).transpose(0, 1),
        query.shape[1],
        packed,
        layer=int(getattr(module, "layer_idx", 0)),
        scale=scaling if scaling is not None else query.shape[-1] ** -0.5,
        window=sliding_window,
        softcap=softcap,
        dropout=dropout,
    )
    return out.float().unsqueeze(0), None


def attention(
    joined: Tensor,
    heads: int,
    packed: Context,
    *,
    layer: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of `joined [T, heads + 2 · kv heads, size]` (queries, keys, values): `[T, heads, size]`."""
    groups = (joined.shape[1] - heads) // 2
    cache = packed.cache
    if cache is not None:
        if cache.decoding:
            return decode(joined, heads, packed, cache, layer, scale, window, softcap)
        key, value = torch.split(joined.transpose(0, 1)[heads:], groups)
        cache.fill(layer, key, value, packed.dtype)
    if dropout or softcap is not None:
        return tiled.by_autograd(joined, heads, packed, scale, window, softcap, dropout)
    if (flash := varlen.kernel_for(joined, heads, packed.dtype)) is not None:
        return varlen.attention(joined, heads, packed, scale, window, flash)
    if (kernels := native.of(joined.device, packed.dtype)) is None:
        return tiled.attention(joined, heads, packed, scale, window)
    out: Tensor = _NativeAttention.apply(joined, heads, packed, scale, window, kernels)  # type: ignore[no-untyped-call]  # torch
    return out


def install() -> None:
    """Make the engine's attention known to transformers under `NAME`; the mask stays None, segments take its place."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


class _NativeAttention(torch.autograd.Function):
    """By our kernels (`kernels/attention.c`): sums in float32; kept are the inputs and a number a softmax."""

    @staticmethod
    def forward(
        ctx: Any, joined: Tensor, heads: int, packed: Context, scale: float, window: int | None, kernels: Kernels
    ) -> Tensor:
        total, width, size = joined.shape
        joined = joined.float().contiguous()
        shape = len(packed.spans), heads, (width - heads) // 2, size, window or 0, scale
        out = torch.empty((total, heads, size), dtype=packed.dtype)
        out[packed.spans[-1].stop :] = 0
        normaliser = torch.empty((total, heads)) if ctx.needs_input_grad[0] else None
        kernels.call("attend", joined, out, normaliser, *packed.places, *shape)
        if normaliser is not None:
            ctx.save_for_backward(joined, normaliser)
            ctx.packed, ctx.shape, ctx.kernels = packed, shape, kernels
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        joined, normaliser = ctx.saved_tensors
        threads, (total, width, size) = torch.get_num_threads(), joined.shape
        back, spare = torch.empty_like(joined), torch.empty((threads, total, width - grad.shape[1], size))
        back[ctx.packed.spans[-1].stop :] = 0
        given = joined, normaliser, grad.contiguous(), back, spare, threads, total, *ctx.packed.places, *ctx.shape
        ctx.kernels.call("attend_back", *given)
        return back, None, None, None, None, None


def decode(
    joined: Tensor,
    heads: int,
    packed: Context,
    cache: Cache,
    layer: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """One new token a row against everything the row holds; its key and value are kept.

    Of `joined [rows, heads + 2 · kv heads, size]` (float32): `[rows, heads, size]` at product precision.
    """
    rows, _, size = joined.shape
    groups = (joined.shape[1] - heads) // 2
    kernels = native.of(joined.device, packed.dtype)
    if kernels is not None and softcap is None:
        out = torch.empty((rows, heads, size), dtype=packed.dtype)
        shape = rows, heads, groups, cache.room, size, window or 0
        kernels.call("decode", joined.float().contiguous(), cache.kept[layer], cache.lengths, out, *shape, scale)
        return out
    empty = packed.empty(cache, window, groups)
    keys, values = cache.add(layer, joined[:, heads:].view(rows, 2, groups, size))
    query = joined[:, :heads].to(empty.dtype).reshape(rows * groups, -1, size)
    if softcap is None:
        scores = torch.baddbmm(empty, query, keys, alpha=scale)
    else:
        scores = torch.tanh(torch.bmm(query, keys) * (scale / softcap)) * softcap + empty
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(empty.dtype)
    return torch.bmm(shares, values.transpose(1, 2)).view(rows, heads, size)
