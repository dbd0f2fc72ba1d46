"""Attention on a GPU: all segments of a pack in one call of torch's flash kernel for rows of uneven lengths.

FlashAttention-2 (Dao 2023, arXiv 2307.08691). The kernel takes queries and keys as runs laid end to end and aligns
them at their ends, so a query sees all of its run's keys but those behind it: a segment with a parent is a run whose
keys are its ancestors' and then its own, gathered; their gradients add up where they came from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.progress import say
from tunesmith.engine import tiled
from tunesmith.engine.packing import Segment
from tunesmith.engine.tiles import Context, spans

Kernel = Callable[..., Any]
"""``torch.nn.attention.varlen.varlen_attn``, or what does the same: of queries `[T, heads, size]`, keys and values
`[K, kv heads, size]`, where runs of queries and of keys begin `[runs + 1]` (int32), and the longest of each."""
LARGEST = 256
"""Size of a head up to which the flash kernel goes; it has to be a multiple of eight."""
NEAR = 0.02
"""How far the kernel may lie from our own products, as a share: both round to bfloat16, which has 8 bits."""


def attention(joined: Tensor, heads: int, packed: Context, scale: float, window: int | None, kernel: Kernel) -> Tensor:
    """As `engine.attention.attention`, by `kernel` at product precision: `[T, heads, size]`."""
    runs, groups = packed.runs, (joined.shape[1] - heads) // 2
    query, key, value = torch.split(joined.to(packed.dtype), [heads, groups, groups], dim=1)
    if runs.gathered is not None:
        key, value = key.index_select(0, runs.gathered), value.index_select(0, runs.gathered)
    else:
        key, value = key[: runs.covered], value[: runs.covered]
    found = kernel(
        *(side.contiguous() for side in (query[: runs.covered], key, value)),
        runs.queries,
        runs.keys,
        runs.most_queries,
        runs.most_keys,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=groups != heads,
    )
    return torch.cat([found, found.new_zeros(packed.total - runs.covered, heads, joined.shape[2])])


def kernel_for(joined: Tensor, heads: int, dtype: torch.dtype) -> Kernel | None:
    """The flash kernel where this GPU has one for such heads, and it has been seen to agree with our products."""
    size, groups = joined.shape[2], (joined.shape[1] - heads) // 2
    if joined.device.type != "cuda" or dtype != torch.bfloat16 or size > LARGEST or size % 8:
        return None
    return _tried(joined.device, heads, groups, size)


@lru_cache
def _tried(device: torch.device, heads: int, groups: int, size: int) -> Kernel | None:
    """torch's kernel, None where it is missing, refuses, or does not agree: then our own products do the work."""
    try:
        from torch.nn.attention.varlen import varlen_attn

        kernel: Kernel = varlen_attn
        apart = disagreement(kernel, device, heads, groups, size)
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        say(f"attention: torch's flash kernel cannot be used here ({error}); products do its work, slower")
        return None
    if apart > NEAR:
        say(f"attention: torch's flash kernel is {apart:.1%} off on this GPU; products do its work, slower")
        return None
    return kernel


def disagreement(kernel: Kernel, device: torch.device, heads: int, groups: int, size: int) -> float:
    """How far results and gradients lie from those of our products, as a share, on a small pack that has everything."""
    segments = (Segment(0, 40), Segment(40, 30, 0), Segment(70, 9, 1), Segment(79, 9, 0), Segment(88, 50))
    packed = Context(spans(segments), 192, torch.bfloat16, device)
    generator, scale = torch.Generator().manual_seed(0), size**-0.5
    drawn = torch.randn(packed.total, heads + 2 * groups, size, generator=generator).to(device)
    upper = torch.randn(packed.total, heads, size, generator=generator).to(device)

    def apart(window: int | None) -> float:
        found: list[tuple[Tensor, Tensor]] = []
        for by_kernel in (True, False):
            joined = drawn.clone().requires_grad_()
            given = joined, heads, packed, scale, window
            out = attention(*given, kernel) if by_kernel else tiled.attention(*given)
            found.append((out.detach(), torch.autograd.grad(out.float(), joined, upper)[0]))
        return max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in zip(*found, strict=True))

    with torch.inference_mode(False), torch.enable_grad():
        return max(apart(window) for window in (None, 20))
