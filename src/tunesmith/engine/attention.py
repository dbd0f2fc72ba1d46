"""Attention inside segments, entered through transformers' own `AttentionInterface`.

On short segments this beats the flash kernel of the CPU (eight segments of 180–400 tokens, forward and backward: 36
ms against 57 ms), and it knows what no stock kernel does: that a segment also sees its ancestors. The scores are
float32, as is the softmax; the probabilities are multiplied with the values at the model's product precision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from tunesmith.engine.packing import Segment

NAME = "tunesmith"
BLOCK = 64
"""Tokens by which a decoding cache grows."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where a segment's queries lie, `[start, stop)`, and where its keys lie: its ancestors' ranges, then its own."""

    start: int
    stop: int
    keys: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Context:
    """What a pass tells every attention layer: the spans, the precision of products, the cache if one is kept."""

    spans: tuple[Span, ...]
    dtype: torch.dtype
    cache: Cache | None = None


@dataclass(slots=True)
class Cache:
    """Keys and values of several sequences for decoding, per layer `[rows, kv heads, capacity, head size]`.

    Filled by one packed pass over the prompts (`ways`, as in PackedBatch; a shared beginning is copied to every row
    that has it), then grown by one token a row at each decoding step. `lengths [rows]` counts what each row holds.
    """

    ways: tuple[tuple[tuple[int, int], ...], ...]
    lengths: Tensor
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    decoding: bool = False

    def fill(self, layer: int, key: Tensor, value: Tensor, dtype: torch.dtype) -> None:
        """Keep the keys and values of every row, `[kv heads, T, head size]`."""
        shape = (len(self.ways), key.shape[0], int(self.lengths.max()) + BLOCK, key.shape[2])
        for kept, new in ((self.keys, key), (self.values, value)):
            kept[layer] = new.new_zeros(shape, dtype=dtype)
            for row, way in enumerate(self.ways):
                pieces = torch.cat([new[:, start:stop] for start, stop in way], dim=1)
                kept[layer][row, :, : pieces.shape[1]] = pieces

    def add(self, layer: int, key: Tensor, value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keep one more token of every row, `[kv heads, rows, head size]`; gives all keys and all values.

        They come whole, with room at the end that holds nothing yet: products of a whole tensor need no copy of it.
        """
        each = torch.arange(len(self.lengths), device=key.device)
        full = int(self.lengths.max()) >= self.keys[layer].shape[2]
        for kept, new in ((self.keys, key), (self.values, value)):
            if full:
                kept[layer] = nn.functional.pad(kept[layer], (0, 0, 0, BLOCK))
            kept[layer][each, :, self.lengths] = new.transpose(0, 1).to(dtype)
        return self.keys[layer], self.values[layer]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices), in this order."""
        self.lengths = self.lengths[rows]
        for kept in (self.keys, self.values):
            for layer in kept:
                kept[layer] = kept[layer][rows]


def spans(segments: tuple[Segment, ...]) -> tuple[Span, ...]:
    """Each segment with the flat ranges it may look at."""
    seen: list[tuple[tuple[int, int], ...]] = []
    for segment in segments:
        own = (segment.start, segment.start + segment.length)
        above = seen[segment.parent] if segment.parent >= 0 else ()
        joined = (*above[:-1], (above[-1][0], own[1])) if above and above[-1][1] == own[0] else (*above, own)
        seen.append(joined)
    return tuple(Span(s.start, s.start + s.length, keys) for s, keys in zip(segments, seen, strict=True))


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
    """The attention function that transformers calls in every layer.

    `query [1, heads, T, size]`, `key` and `value [1, kv heads, T, size]`; returns `[1, T, heads, size]` (float32).
    Raises RuntimeError when the model is called without a packed batch: it was prepared for the engine.
    """
    if packed is None:
        raise RuntimeError("this model was prepared for Tunesmith's engine; call engine.forward.forward(model, batch)")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(getattr(module, "layer_idx", 0))
    cache = packed.cache
    if cache is not None and cache.decoding:
        return _decode(query, key, value, cache, layer, scale, sliding_window, softcap, packed.dtype), None
    if cache is not None:
        cache.fill(layer, key[0], value[0], packed.dtype)
    if dropout or softcap is not None:
        out = _by_autograd(query[0], key[0], value[0], packed, scale, sliding_window, softcap, dropout)
    else:
        out = _SegmentAttention.apply(  # type: ignore[no-untyped-call]  # of torch
            query[0], key[0], value[0], packed, scale, sliding_window
        )
    return out.unsqueeze(0), None


def install() -> None:
    """Make the engine's attention known to transformers under `NAME`; the mask stays None, segments take its place."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


def _hidden(span: Span, queries: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys each query of a segment may not see, `[queries, keys]`; None when a single query sees everything."""
    keys = sum(stop - start for start, stop in span.keys)
    if queries == 1 and (window is None or keys <= window):
        return None
    behind = torch.arange(keys, device=device) - torch.arange(keys - queries, keys, device=device).unsqueeze(1)
    hidden = behind > 0
    return hidden if window is None or keys <= window else hidden | (behind <= -window)


def _gather(tensor: Tensor, span: Span) -> Tensor:
    """The keys or values that a span sees, `[kv heads, keys, size]`."""
    if len(span.keys) == 1:
        start, stop = span.keys[0]
        return tensor[:, start:stop]
    return torch.cat([tensor[:, start:stop] for start, stop in span.keys], dim=1)


class _SegmentAttention(torch.autograd.Function):
    """All segments of one layer in one node of the graph: one save, no graph inside.

    softmax(Q Kᵀ · scale) V, and backward dV = Pᵀ dO, dS = P ∘ (dO Vᵀ − rowsum(dO ∘ O)), dQ = dS K, dK = dSᵀ Q
    (Dao et al. 2022, arXiv 2205.14135, eq. 3–5). Grouped queries lie side by side, so keys are never repeated.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, packed: Context, scale: float, window: int | None
    ) -> Tensor:
        heads, total, size = query.shape
        groups = key.shape[0]
        out = torch.empty(total, heads, size, dtype=torch.float32, device=query.device)
        kept = []
        for span in packed.spans:
            length = span.stop - span.start
            q = query[:, span.start : span.stop].reshape(groups, -1, size)
            k = _gather(key, span)
            scores = torch.bmm(q.float(), k.float().transpose(1, 2)).mul_(scale)
            hidden = _hidden(span, length, window, query.device)
            if hidden is not None:
                scores.view(heads, length, -1).masked_fill_(hidden, float("-inf"))
            shares = torch.softmax(scores, dim=-1).to(packed.dtype)
            o = torch.bmm(shares, _gather(value, span).to(packed.dtype))
            out[span.start : span.stop] = o.view(heads, length, size).transpose(0, 1)
            kept.append(shares)
        if any(ctx.needs_input_grad[:3]):
            ctx.save_for_backward(query, key, value, out, *kept)
            ctx.packed, ctx.scale = packed, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *kept = ctx.saved_tensors
        packed: Context = ctx.packed
        heads, _, size = query.shape
        groups = key.shape[0]
        dq = torch.empty_like(query, dtype=torch.float32)
        dk = torch.zeros_like(key, dtype=torch.float32)
        dv = torch.zeros_like(value, dtype=torch.float32)
        row_sums = (grad * out).sum(-1).transpose(0, 1)
        for span, shares in zip(packed.spans, kept, strict=True):
            length = span.stop - span.start
            d = grad[span.start : span.stop].transpose(0, 1).reshape(groups, -1, size).to(packed.dtype)
            q = query[:, span.start : span.stop].reshape(groups, -1, size).to(packed.dtype)
            through = torch.bmm(d, _gather(value, span).to(packed.dtype).transpose(1, 2)).float()
            through -= row_sums[:, span.start : span.stop].reshape(groups, -1, 1)
            through *= shares
            ds = through.mul_(ctx.scale).to(packed.dtype)
            dq[:, span.start : span.stop] = torch.bmm(ds, _gather(key, span).to(packed.dtype)).view(heads, length, size)
            _scatter(dk, torch.bmm(ds.transpose(1, 2), q), span)
            _scatter(dv, torch.bmm(shares.transpose(1, 2), d), span)
        return dq, dk, dv, None, None, None


def _scatter(into: Tensor, grad: Tensor, span: Span) -> None:
    """Add a span's gradient to the keys it looked at; a shared ancestor collects from all its children."""
    place = 0
    for start, stop in span.keys:
        into[:, start:stop] += grad[:, place : place + stop - start]
        place += stop - start


def _by_autograd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: Context,
    scale: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """The same in plain operations, for models that cap their scores (Gemma 2) or drop attention weights."""
    heads, _, size = query.shape
    groups = key.shape[0]
    pieces = []
    for span in packed.spans:
        length = span.stop - span.start
        q = query[:, span.start : span.stop].reshape(groups, -1, size)
        scores = torch.bmm(q.float(), _gather(key, span).float().transpose(1, 2)) * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        hidden = _hidden(span, length, window, query.device)
        if hidden is not None:
            scores = (
                scores.view(heads, length, -1)
                .masked_fill(hidden, float("-inf"))
                .view(groups, heads // groups * length, -1)
            )
        shares = nn.functional.dropout(torch.softmax(scores, dim=-1), dropout).to(packed.dtype)
        o = torch.bmm(shares, _gather(value, span).to(packed.dtype)).float()
        pieces.append(o.view(heads, length, size).transpose(0, 1))
    return torch.cat(pieces)


def _decode(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cache: Cache,
    layer: int,
    scale: float,
    window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
) -> Tensor:
    """One new token a row against everything the row holds; the new key and value are kept."""
    _, heads, rows, size = query.shape
    groups = key.shape[1]
    keys, values = cache.add(layer, key[0], value[0], dtype)
    room = keys.shape[2]
    k, v = keys.flatten(0, 1), values.flatten(0, 1)
    q = query[0].view(groups, heads // groups, rows, size).permute(2, 0, 1, 3).reshape(rows * groups, -1, size)
    scores = torch.bmm(q.to(dtype), k.transpose(1, 2)).float().mul_(scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    places = torch.arange(room, device=query.device)
    hidden = places > cache.lengths.unsqueeze(1)
    if window is not None:
        hidden |= places <= cache.lengths.unsqueeze(1) - window
    scores = scores.view(rows, heads, room).masked_fill_(hidden.unsqueeze(1), float("-inf"))
    shares = torch.softmax(scores, dim=-1).to(dtype).view(rows * groups, -1, room)
    out = torch.bmm(shares, v).float().view(rows, heads, size)
    return out.unsqueeze(0)
