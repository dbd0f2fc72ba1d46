"""A packed batch as a decoder takes it: all rows in one run of tokens, and the spans that attention goes by."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from tunesmith.engine.cache import Cache
from tunesmith.engine.packing import PackedBatch
from tunesmith.engine.prepare import Prepared
from tunesmith.engine.tiles import Context, spans

FILLED = 64
"""Flat tokens are filled up to a multiple of this, and predicting positions of half: see `engine.tiles`."""


def inputs(prepared: Prepared, batch: PackedBatch, cache: Cache | None, keep: Tensor | None = None) -> dict[str, Any]:
    """What a decoder takes for a packed batch: flat, filled up; `keep` are the positions whose states are wanted."""
    spare = -len(batch.tokens) % FILLED
    total = len(batch.tokens) + spare
    context = Context(
        spans(batch.segments), total, prepared.dtype, prepared.device, cache, keep, recompute=prepared.recompute
    )
    return {
        "input_ids": pad(batch.tokens, (0, spare)).unsqueeze(0),
        "position_ids": pad(batch.positions, (0, spare)).unsqueeze(0),
        "use_cache": False,
        "packed": context,
    }
