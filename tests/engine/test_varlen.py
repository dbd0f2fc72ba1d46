"""Attention on a GPU: uneven rows in one call. The kernel is torch's; what it is given is checked anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.engine import attention, tiled, varlen
from tunesmith.engine.packing import Segment
from tunesmith.engine.tiles import Context, spans

ALONE = (Segment(0, 40), Segment(40, 200), Segment(240, 7))
FAMILY = (Segment(0, 150), Segment(150, 30, 0), Segment(180, 9, 1), Segment(189, 20, 1), Segment(209, 140, 0))


def reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Tensor,
    keys: Tensor,
    most_queries: int,
    most_keys: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What ``torch.nn.attention.varlen.varlen_attn`` says that it computes, run by run."""
    assert queries.dtype == keys.dtype == torch.int32
    assert all(side.is_contiguous() for side in (query, key, value))
    assert enable_gqa == (query.shape[1] != key.shape[1])
    lengths = [ends.diff() for ends in (queries, keys)]
    assert (int(lengths[0].max()), int(lengths[1].max())) == (most_queries, most_keys)
    assert (int(queries[-1]), int(keys[-1])) == (len(query), len(key))
    out = []
    sides = [query.split(lengths[0].tolist()), *(side.split(lengths[1].tolist()) for side in (key, value))]
    for q, k, v in zip(*sides, strict=True):
        k, v = (side.repeat_interleave(query.shape[1] // key.shape[1], 1) for side in (k, v))
        scores = torch.einsum("qhs,khs->hqk", q, k) * scale
        place = torch.arange(len(k)) - torch.arange(len(k) - len(q), len(k))[:, None]  # ends are aligned
        left, right = window_size
        hidden = (place > right) | (place < -left if left >= 0 else torch.zeros_like(place, dtype=torch.bool))
        out.append(torch.einsum("hqk,khs->qhs", scores.masked_fill(hidden, -math.inf).softmax(-1), v))
    return torch.cat(out)


@pytest.mark.parametrize("window", [None, 11])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("segments", [ALONE, FAMILY])
def test_segments_as_runs_give_what_products_give(
    segments: Sequence[Segment], heads: int, groups: int, window: int | None
) -> None:
    covered = segments[-1].start + segments[-1].length
    packed = Context(spans(tuple(segments)), covered + 13, torch.float32, torch.device("cpu"))
    joined = torch.randn(packed.total, heads + 2 * groups, 16, requires_grad=True)
    upper = torch.randn(packed.total, heads, 16)
    upper[covered:] = 0
    both = (
        varlen.attention(joined, heads, packed, 0.25, window, reference),
        tiled.attention(joined, heads, packed, 0.25, window),
    )
    found = [(out.detach(), torch.autograd.grad(out, joined, upper)[0]) for out in both]
    for ours, products in zip(*found, strict=True):
        torch.testing.assert_close(ours, products, rtol=1e-4, atol=1e-5)
    assert not found[0][0][covered:].any()


def test_rows_that_share_nothing_are_not_copied_together() -> None:
    device = torch.device("cpu")
    alone = Context(spans(ALONE), 256, torch.float32, device).runs
    assert (alone.gathered, alone.covered, alone.queries.tolist()) == (None, 247, [0, 40, 240, 247])
    family = Context(spans(FAMILY), 384, torch.float32, device).runs
    # A first child goes straight on where its parent ended, and so on: together they are one row.
    assert family.queries.tolist() == [0, 189, 209, 349]
    assert family.keys.diff().tolist() == [189, 150 + 30 + 20, 150 + 140]


@pytest.mark.parametrize(
    ("kernel", "near"),
    [
        (lambda *given, **how: _kernel(*given, **how), True),
        (lambda *given, **how: _kernel(*given, **{**how, "window_size": (-1, -1)}), False),
        (lambda *given, **how: _kernel(*given, **{**how, "scale": 1.1 * how["scale"]}), False),
    ],
)
def test_a_kernel_that_computes_something_else_is_found_out(kernel: Callable[..., Tensor], near: bool) -> None:
    apart = varlen.disagreement(kernel, torch.device("cpu"), 6, 2, 16)
    assert (apart < varlen.NEAR) == near


def _kernel(query: Tensor, key: Tensor, value: Tensor, *given: Any, **how: Any) -> Tensor:
    return reference(query.float(), key.float(), value.float(), *given, **how).to(query.dtype)


def test_without_a_gpu_there_is_no_flash_kernel() -> None:
    assert varlen.kernel_for(torch.zeros(4, 6, 16), 2, torch.bfloat16) is None


@pytest.mark.gpu
@pytest.mark.parametrize(("heads", "groups", "size"), [(9, 3, 64), (32, 8, 128)])
def test_on_a_gpu_the_flash_kernel_agrees_with_products(heads: int, groups: int, size: int) -> None:
    device = torch.device("cuda")
    joined = torch.zeros(1, heads + 2 * groups, size, device=device)
    kernel = varlen.kernel_for(joined, heads, torch.bfloat16)
    assert kernel is not None
    assert varlen.disagreement(kernel, device, heads, groups, size) < varlen.NEAR


@pytest.mark.gpu
def test_a_gpu_attends_as_a_processor_does() -> None:
    given, found = torch.randn(384, 10, 64), []
    for device in ("cuda", "cpu"):
        packed = Context(spans(FAMILY), 384, torch.bfloat16, torch.device(device))
        joined = given.to(device).requires_grad_()
        out = attention.attention(joined, 6, packed, layer=0, scale=0.125)
        found.append((out.detach().cpu(), torch.autograd.grad(out.float().sum(), joined)[0].cpu()))
    for ours, wanted in zip(*found, strict=True):  # both round to bfloat16, in another order
        assert (ours.float() - wanted.float()).norm() < varlen.NEAR * wanted.float().norm()
