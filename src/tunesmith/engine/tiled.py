"""Attention by torch's own products, tile by tile (`engine.tiles`): what needs no kernel and runs anywhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.engine.tiles import Context, Tiles


def attention(joined: Tensor, heads: int, packed: Context, scale: float, window: int | None) -> Tensor:
    """As `engine.attention.attention`, of `joined [T, heads + 2 · kv heads, size]`: `[T, heads, size]`."""
    out: Tensor = _TiledAttention.apply(joined, heads, packed, scale, window)  # type: ignore[no-untyped-call]  # of torch
    return out


class _TiledAttention(torch.autograd.Function):
    """All segments of one layer in one node of the graph: one save, no graph inside.

    softmax(Q Kᵀ · scale) V, and backward dV = Pᵀ dO, dS = P ∘ (dO Vᵀ − rowsum(dO ∘ O)), dQ = dS K, dK = dSᵀ Q
    (Dao et al. 2022, arXiv 2205.14135, eq. 3–5). Queries of one group lie side by side, so keys are never repeated.
    """

    @staticmethod
    def forward(ctx: Any, joined: Tensor, heads: int, packed: Context, scale: float, window: int | None) -> Tensor:
        total, _, size = joined.shape
        query, key = _exact(joined, heads, scale)
        value = _sides(joined, heads)[2].to(packed.dtype)
        out = torch.zeros(query.shape, dtype=packed.dtype, device=joined.device)
        learning, kept = ctx.needs_input_grad[0], []
        for tiles in packed.tiles(window):
            shares = _shares(query, key, tiles, size, packed.dtype)
            found = torch.bmm(shares, _rows(value, tiles.keys, size))
            out.index_copy_(1, tiles.queries.flatten(), found.view(len(out), -1, out.shape[2]))
            if learning and tiles.kept:
                kept.append(shares)
        out = out[:, :-1].transpose(0, 1).reshape(total, heads, size)
        if learning:
            # At the precision of products where nothing has to be computed again from it.
            small = all(span.kept for span in packed.spans)
            ctx.save_for_backward(joined.to(packed.dtype) if small else joined, out, *kept)
            ctx.heads, ctx.packed, ctx.scale, ctx.window = heads, packed, scale, window
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        joined, out, *kept = ctx.saved_tensors
        packed: Context = ctx.packed
        heads, size = ctx.heads, joined.shape[2]
        query, key, value = _sides(joined, heads)
        query, value = _extended(query, packed.dtype, ctx.scale), value.to(packed.dtype)
        key = torch.mul(key, ctx.scale).to(packed.dtype)
        back = torch.zeros(joined.shape, dtype=torch.float32, device=joined.device)
        dq, dk, dv = _sides(back, heads)
        turned = torch.zeros(query.shape, dtype=torch.float32, device=joined.device)
        upper = _extended(grad.view(len(grad), len(key), -1).transpose(0, 1), packed.dtype)
        sums = (grad.float() * out).sum(-1).view(len(grad), len(key), -1).transpose(0, 1)
        sums = _extended(sums, packed.dtype)
        shares_kept, exact = iter(kept), None
        for tiles in packed.tiles(ctx.window):
            if tiles.kept:
                shares = next(shares_kept)
            else:
                exact = exact or _exact(joined, heads, ctx.scale)
                shares = _shares(*exact, tiles, size, packed.dtype)
            d = _rows(upper, tiles.queries, size)
            ds = torch.bmm(d, _rows(value, tiles.keys, size).transpose(1, 2))
            ds.sub_(_rows(sums, tiles.queries, 1)).mul_(shares)
            found = torch.bmm(ds, _rows(key, tiles.keys, size))
            turned.index_copy_(1, tiles.queries.flatten(), found.view(len(key), -1, turned.shape[2]).float())
            _scatter(dk, torch.bmm(ds.transpose(1, 2), _rows(query, tiles.queries, size)), tiles)
            _scatter(dv, torch.bmm(shares.transpose(1, 2), d), tiles)
        dq.copy_(turned[:, :-1])
        return back, None, None, None, None


def _exact(joined: Tensor, heads: int, scale: float) -> tuple[Tensor, Tensor]:
    """Scaled queries and keys as the scores are made of them, in float32."""
    query, key, _ = _sides(joined, heads)
    return _extended(query, torch.float32, scale), key.float()


def _scatter(into: Tensor, grad: Tensor, tiles: Tiles) -> None:
    """Add tiles' gradients to the keys they looked at; a shared ancestor collects from all its children."""
    flat = grad.view(len(into), -1, grad.shape[2])
    for start, stop, place in tiles.pieces:
        into[:, start:stop] += flat[:, place : place + stop - start]


def by_autograd(
    joined: Tensor,
    heads: int,
    packed: Context,
    scale: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """The same in plain operations, for models that cap their scores (Gemma 2) or drop attention weights."""
    total, _, size = joined.shape
    query, key, value = _sides(joined.float(), heads)
    query = nn.functional.pad(query * scale, (0, 0, 0, 1))
    out = query.new_zeros(query.shape)
    for tiles in packed.tiles(window):
        count, width = tiles.queries.shape
        scores = torch.bmm(_rows(query, tiles.queries, size), _rows(key, tiles.keys, size).transpose(1, 2))
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        apart = scores.view(-1, count, width, scores.shape[1] // width, scores.shape[2]) + tiles.hidden
        shares = nn.functional.dropout(torch.softmax(apart, dim=-1).view(scores.shape), dropout).to(packed.dtype)
        found = torch.bmm(shares, _rows(value.to(packed.dtype), tiles.keys, size))
        out = out.index_copy(1, tiles.queries.flatten(), found.view(len(out), -1, out.shape[2]).float())
    return out[:, :-1].transpose(0, 1).reshape(total, heads, size)


def _sides(joined: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `[kv heads, T, heads / kv heads · size]`, keys and values `[kv heads, T, size]`, as views."""
    groups = (joined.shape[1] - heads) // 2
    flat = joined.flatten(1)
    size = joined.shape[2]
    sides = torch.split(flat, [heads * size, groups * size, groups * size], dim=1)
    query, key, value = (one.view(len(one), groups, -1).transpose(0, 1) for one in sides)
    return query, key, value


def _extended(side: Tensor, dtype: torch.dtype, factor: float = 1.0) -> Tensor:
    """A copy as `dtype` with a row of zeros at the end, that filled up tiles take."""
    out = side.new_empty((side.shape[0], side.shape[1] + 1, side.shape[2]), dtype=dtype)
    torch.mul(side, factor, out=out[:, :-1]) if factor != 1.0 else out[:, :-1].copy_(side)
    out[:, -1] = 0
    return out


def _rows(side: Tensor, places: Tensor, size: int) -> Tensor:
    """Rows of a side at `places [n, q]`, `[kv heads · n, q · width / size, size]`."""
    return side.index_select(1, places.flatten()).view(len(side) * len(places), -1, size)


def _shares(query: Tensor, key: Tensor, tiles: Tiles, size: int, dtype: torch.dtype) -> Tensor:
    """Attention weights of tiles, `[kv heads · n, q · heads / kv heads, k]`, from scaled queries, as `dtype`."""
    count, width = tiles.queries.shape
    scores = torch.bmm(_rows(query, tiles.queries, size), _rows(key, tiles.keys, size).transpose(1, 2))
    scores.view(-1, count, width, scores.shape[1] // width, scores.shape[2]).add_(tiles.hidden)
    return torch.softmax(scores, dim=-1).to(dtype)
