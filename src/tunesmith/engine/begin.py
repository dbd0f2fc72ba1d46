"""Laying a method on a prepared model at the beginning of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.records import Encoded
from tunesmith.engine.cache import Cache
from tunesmith.engine.forward import logits
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import Prepared


def attach(prepared: Prepared, method: Any) -> None:
    """Attach a chosen method (`core.config.Chosen`); one that starts from what the model makes of a text gets it."""
    method.module.attach(prepared.model, method.config)
    if hasattr(method.module, "begin"):
        method.module.begin(prepared.model, method.config, lambda ids: keys_and_values(prepared, ids))


@torch.no_grad()
def keys_and_values(prepared: Prepared, ids: Sequence[int]) -> Tensor:
    """What attention keeps of tokens at positions 0, 1, …: `[tokens, layers, 2, kv heads · head size]`, float32."""
    row = Encoded((*ids, 0), (*([0.0] * len(ids)), 1.0))
    batch = pack([row]).to(prepared.device)
    cache = Cache(batch.ways, torch.tensor([len(ids)], device=prepared.device))
    logits(prepared, batch, batch.index, cache)
    layers = [cache.kept[layer][:, 0, :, :, : len(ids)].permute(3, 0, 1, 2).flatten(2) for layer in sorted(cache.kept)]
    return torch.stack(layers, 1).float()
