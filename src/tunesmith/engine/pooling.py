"""One vector a row: a body's hidden states after a layer, pooled over the row's tokens.

What sentence vectors are, and what a `LabelHead` asks for. Below such a head the body does not change, so what was
computed is remembered by the row's tokens, in the head while it lives and on disk between runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tunesmith.core.config import Pooling
from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_write
from tunesmith.core.packages import cache_home
from tunesmith.core.progress import track
from tunesmith.core.records import Encoded
from tunesmith.engine import encoder
from tunesmith.engine.flat import inputs
from tunesmith.engine.packing import PackedBatch, pack_whole, plan_whole
from tunesmith.engine.prepare import Prepared
from tunesmith.methods._blocks import blocks
from tunesmith.methods._label_head import LabelHead


def embeddings(
    prepared: Prepared,
    rows: Sequence[Encoded],
    *,
    pooling: Pooling = "mean",
    layer: int = -1,
    prefix: Sequence[int] = (),
    on_rows: Callable[[float], object] = lambda n: None,
) -> Tensor:
    """The vectors of `rows`, `[rows, hidden]` float32 on the CPU, rows of like length computed together.

    The virtual tokens of `prefix` stand before every row and are seen by it, but are no part of what is pooled. Raises
    Mistake where the model has no such layer.
    """
    found: dict[int, Tensor] = {}
    for group in plan_whole(rows, max_tokens=encoder.MAX_TOKENS, prefix_length=len(prefix)):
        batch = pack_whole([rows[i] for i in group], prefix=prefix).to(prepared.device)
        made = _computed(prepared, batch, pooling, layer, len(prefix))
        found.update(zip(group, made.cpu(), strict=True))
        on_rows(len(group))
    return torch.stack([found[i] for i in range(len(rows))])


def pooled(prepared: Prepared, batch: PackedBatch, head: LabelHead) -> Tensor:
    """The vectors of a whole batch's rows, `[rows, hidden]` float32; rows seen before are looked up."""
    keys = [_key(batch, place) for place in range(len(batch.segments))]
    new = [place for place, key in enumerate(keys) if key not in head.states]
    if new:
        rows = [Encoded(keys[place], (), second=batch.segments[place].second) for place in new]
        made = _computed(prepared, pack_whole(rows).to(prepared.device), head.pooling, head.layer)
        head.states.update((keys[place], vector) for place, vector in zip(new, made.cpu(), strict=True))
    return torch.stack([head.states[key] for key in keys]).to(prepared.device)


def remember(prepared: Prepared, rows: Sequence[Encoded], head: LabelHead) -> Tensor:
    """The vectors of `rows`, `[rows, hidden]` on the CPU; kept on disk for a model with an identity."""
    known_by = (prepared.identity, str(prepared.dtype), prepared.quantization, head.pooling, head.layer)
    digest = hashlib.sha256(repr(known_by).encode())
    for row in rows:
        digest.update(repr((row.ids, row.second)).encode())
    kept = cache_home() / "states" / f"{digest.hexdigest()[:24]}.safetensors"
    found = load_file(kept)["states"] if prepared.identity and kept.is_file() else _all(prepared, rows, head)
    if prepared.identity and not kept.is_file():
        atomic_write(kept, save({"states": found}), remedy="set TUNESMITH_HOME to a folder with room")
    head.states.update(((row.ids, vector) for row, vector in zip(rows, found, strict=True)))
    return found


def _all(prepared: Prepared, rows: Sequence[Encoded], head: LabelHead) -> Tensor:
    with track(len(rows), "rows", "reading") as bar:
        return embeddings(prepared, rows, pooling=head.pooling, layer=head.layer, on_rows=bar.advance)


@torch.inference_mode(False)  # what is remembered while answering is learned from later
@torch.no_grad()
def _computed(prepared: Prepared, batch: PackedBatch, pooling: Pooling, layer: int, skipped: int = 0) -> Tensor:
    training = prepared.model.training
    prepared.model.eval()  # dropout in a body that does not learn is noise, and would be remembered
    states = _states(prepared, batch, layer)
    prepared.model.train(training)
    return pool(states.float(), batch, pooling, skipped)


def pool(states: Tensor, batch: PackedBatch, pooling: Pooling, skipped: int = 0) -> Tensor:
    """One vector a segment, `[rows, hidden]`, of flat states `[tokens, hidden]`; its first `skipped` do not count."""
    starts = torch.tensor([segment.start for segment in batch.segments], device=states.device)
    lengths = torch.tensor([segment.length for segment in batch.segments], device=states.device)
    if pooling != "mean":
        return states[starts + (lengths - 1 if pooling == "last" else skipped)]
    row = torch.repeat_interleave(torch.arange(len(lengths), device=states.device), lengths)
    own = batch.positions >= skipped
    sums = torch.zeros(len(lengths), states.shape[1], device=states.device).index_add_(0, row[own], states[own])
    return sums / (lengths - skipped)[:, None]


def _states(prepared: Prepared, batch: PackedBatch, layer: int) -> Tensor:
    """Flat hidden states `[tokens, hidden]` after a layer. Raises Mistake where the model has no such layer."""
    model: Any = prepared.model
    if prepared.kind == "decoder":
        with _tapped(model, layer) as tap:
            last = model.base_model(**inputs(prepared, batch, None)).last_hidden_state
        return (tap[0] if tap else last)[0, : len(batch.tokens)]
    reader = model.get_encoder() if prepared.kind == "encoder-decoder" else model.base_model
    padded = encoder.Padded.of(batch, model.config)
    with _tapped(reader, layer) as tap:
        last = reader(**padded.inputs(model.config)).last_hidden_state
    return (tap[0] if tap else last)[padded.mask]


@contextmanager
def _tapped(model: nn.Module, layer: int) -> Iterator[list[Tensor]]:
    """Listen to what a layer, counted from 1, gives; nothing for -1, the last after its norm."""
    heard: list[Tensor] = []
    if layer == -1:
        yield heard
        return
    there = list(blocks(model).values())
    place = layer - 1 if layer > 0 else len(there) + layer
    if layer == 0 or not 0 <= place < len(there):
        raise Mistake(f"layer: got {layer}; expected 1 to {len(there)}, or -1 for the last")

    def hear(module: nn.Module, given: Any, output: Any) -> None:
        heard.append(output[0] if isinstance(output, tuple) else output)

    handle = there[place].register_forward_hook(hear)
    try:
        yield heard
    finally:
        handle.remove()


def _key(batch: PackedBatch, place: int) -> tuple[int, ...]:
    segment = batch.segments[place]
    return tuple(batch.tokens[segment.start : segment.start + segment.length].tolist())
