"""Laying a method on a prepared model at the beginning of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine.cache import Cache
from tunesmith.engine.forward import logits
from tunesmith.engine.packing import pack
from tunesmith.engine.prepare import Prepared
from tunesmith.methods._beginning import Beginning
from tunesmith.models.stored import stored_weight


def attach(prepared: Prepared, method: Any) -> None:
    """Attach a chosen method (`core.config.Chosen`); one that starts from more than the model's modules gets it."""
    method.module.attach(prepared.model, method.config)
    if hasattr(method.module, "begin"):
        given = Beginning(partial(keys_and_values, prepared), partial(whole_weight, prepared))
        method.module.begin(prepared.model, method.config, given)


@torch.no_grad()
def keys_and_values(prepared: Prepared, ids: Sequence[int]) -> Tensor:
    """What attention keeps of tokens at positions 0, 1, …: `[tokens, layers, 2, kv heads · head size]`, float32."""
    row = Encoded((*ids, 0), (*([0.0] * len(ids)), 1.0))
    batch = pack([row]).to(prepared.device)
    cache = Cache(batch.ways, torch.tensor([len(ids)], device=prepared.device))
    logits(prepared, batch, batch.index, cache)
    layers = [cache.kept[layer][:, 0, :, :, : len(ids)].permute(3, 0, 1, 2).flatten(2) for layer in sorted(cache.kept)]
    return torch.stack(layers, 1).float()


def whole_weight(prepared: Prepared, path: str) -> Tensor:
    """The weight of the layer at `path` as the model's files hold it, `[out, in]` float32, on the model's device.

    Raises Mistake for a model that was not read from files, and where they have no such weight.
    """
    if prepared.folder is None:
        raise Mistake("model: it was made in memory, so no file holds its weights; expected one that was loaded")
    return stored_weight(prepared.folder, path).to(prepared.device, torch.float32)
