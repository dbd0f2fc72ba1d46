"""How much memory a run will take, before it starts.

Counted, not guessed: four tiny packs go through the model as it will train, and the tensors that autograd keeps for
them are added up. What they cost is exactly a sum over a pack's tokens, pairs (a token and one it looks at) and
targets, so the cost of any pack follows. Beside that, the trained weights with their gradients and optimizer states,
and what the process holds already. What is not kept but lies there for a moment is counted by hand (`WORKING_LAYERS`,
`LOGITS_AT_ONCE`); what the C library's allocator wastes is measured (`HOLES`, see `benchmarks/memory_estimate.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine import head, labels, native, quantized
from tunesmith.engine.flat import FILLED
from tunesmith.engine.forward import forward
from tunesmith.engine.packing import PackedBatch, pack
from tunesmith.engine.prepare import Prepared
from tunesmith.engine.tiles import KEPT_KEYS, TILE, spans

MB = 1e6
WORKING_LAYERS = 1.0
"""What a layer's backward pass needs for itself, in terms of what a layer keeps: a gradient beside each activation."""
LOGITS_AT_ONCE = 3
"""Tensors of the size of the logits, float32, beside the logits themselves while their gradient is computed."""
LOGITS_OF_A_BLOCK = 10
"""Bytes a number of a block of logits that is gone before the next is made: as product, as float32, as probability.

Our kernels make probabilities of products in their place, and no scores of a tile."""
SCORES_AT_ONCE = 3
"""Tensors of the size of a tile's attention scores, float32, while they are made or their gradient is, by torch."""
WHOLE_AT_ONCE = 4
"""Weights of the size of the largest that lie there whole while quantized layers multiply: two, and both joined."""
HOLES = 1.2
"""Resident memory over live: freed blocks stay with the process, and do not fit packs of other sizes."""
_PROBE = FILLED


class DoesNotFit(Mistake):
    """A run that needs more memory than it may take."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a pack costs memory: flat tokens, pairs of a token and one it looks at, as far as kept, and targets."""

    tokens: int
    pairs: int
    targets: int
    most_keys: int = 0

    @classmethod
    def of(cls, batch: PackedBatch) -> Shape:
        """The shape of a pack that is there."""
        if batch.whole:
            rows, longest = len(batch.segments), max(segment.length for segment in batch.segments)
            return cls(rows * longest, rows * longest**2, len(torch.unique(batch.index)), longest)
        found, filled = spans(batch.segments), len(batch.tokens) + -len(batch.tokens) % FILLED
        pairs = sum(span.size[0] * span.size[1] for span in found if span.kept)
        targets = len(torch.unique(batch.index))
        targets += -targets % (FILLED // 2)
        return cls(filled, pairs, targets, max(span.size[1] for span in found))

    @classmethod
    def full(cls, tokens: int, longest: int, targets_share: float) -> Shape:
        """A pack of `tokens` in rows as long as the longest, the dearest there can be."""
        most_keys = min(longest, tokens)
        return cls(tokens, tokens * min(most_keys, KEPT_KEYS), max(1, round(tokens * targets_share)), most_keys)


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes that autograd keeps of a pack: whatever its size, a token, a pair, and a target.

    `again` is the same where layers keep their input alone and are computed again, one at a time, in the backward pass.
    """

    fixed: float
    token: float
    pair: float
    target: float
    again: Kept | None = None

    def bytes(self, shape: Shape) -> float:
        """What a pack of this shape keeps."""
        return self.fixed + self.token * shape.tokens + self.pair * shape.pairs + self.target * shape.targets


@dataclass(frozen=True, slots=True)
class Estimate:
    """Peak memory of a training run in MB, and what it is made of."""

    held_mb: float
    trained_mb: float
    activations_mb: float
    logits_mb: float

    @property
    def total_mb(self) -> float:
        """The peak, in MB."""
        return self.held_mb + self.trained_mb + self.activations_mb + self.logits_mb

    def as_dict(self) -> dict[str, float]:
        """Rounded MB, for the receipt."""
        parts = {"held": self.held_mb, "trained": self.trained_mb, "activations": self.activations_mb}
        return {
            **{k: round(v) for k, v in parts.items()},
            "logits": round(self.logits_mb),
            "total": round(self.total_mb),
        }


def held_mb() -> float:
    """What this process holds now, in MB (resident)."""
    return float(psutil.Process().memory_info().rss) / MB


def count(prepared: Prepared, prefix: Sequence[int] = ()) -> Kept:
    """Count what the model with its method keeps, by four tiny packs behind `prefix`; random numbers stay as they are.

    This also reads every weight, which until then may lie in its file and not count as held.
    """
    probe = _whole_probe if labels.reads(prepared) else _probe
    packs = [
        probe([_PROBE], 1, prefix),
        probe([_PROBE, _PROBE], 1, prefix),
        probe([2 * _PROBE], 1, prefix),
        probe([_PROBE], _PROBE, prefix),
    ]
    plain = _solved(replace(prepared, recompute=False), packs)
    return replace(plain, again=_solved(prepared, packs)) if prepared.recompute else plain


def _solved(prepared: Prepared, packs: Sequence[PackedBatch]) -> Kept:
    shapes = [Shape.of(batch) for batch in packs]
    devices = [prepared.device] if prepared.device.type == "cuda" else []
    prepared.model.train()
    with torch.random.fork_rng(devices=devices):
        sizes = [_saved_bytes(prepared, batch) for batch in packs]
    prepared.model.eval()
    terms = np.array([[1, shape.tokens, shape.pairs, shape.targets] for shape in shapes], dtype=np.float64)
    fixed, token, pair, target = np.linalg.solve(terms, np.array(sizes, dtype=np.float64)).clip(min=0.0).tolist()
    return Kept(fixed, token, pair, target)


def estimate(prepared: Prepared, kept: Kept, shape: Shape, *, trained_bytes: float) -> Estimate:
    """Peak memory of training when the dearest pack has `shape` and `kept` was counted for this model and method.

    `trained_bytes` is what comes to the trained weights: gradients, the optimizer's slots, and what is put aside.
    """
    config: Any = prepared.model.config.get_text_config()
    layer = (kept.bytes(shape) - kept.target * shape.targets - kept.fixed) / config.num_hidden_layers
    working = WORKING_LAYERS * layer + (layer if kept.again else 0.0)
    working += WHOLE_AT_ONCE * quantized.largest(prepared.model)
    if not _by_kernels(prepared):
        working += SCORES_AT_ONCE * 4 * config.num_attention_heads * min(TILE, shape.tokens) * shape.most_keys
    stays = kept.again or kept
    inside = stays.bytes(shape) - stays.target * shape.targets
    logits = _logits(prepared, kept, shape)
    return Estimate(held_mb(), trained_bytes / MB, HOLES * (inside + working) / MB, HOLES * logits / MB)


def _logits(prepared: Prepared, kept: Kept, shape: Shape) -> float:
    """Bytes of logits and what is made of them, all at once or a block at a time."""
    vocabulary = labels.width(prepared) if labels.reads(prepared) else prepared.vocabulary
    if prepared.ours and head.fits(prepared.head):
        each = prepared.dtype.itemsize if _by_kernels(prepared) else LOGITS_OF_A_BLOCK
        return shape.targets * kept.target + min(shape.targets, head.BLOCK) * vocabulary * each
    return shape.targets * (kept.target + 4 * vocabulary * LOGITS_AT_ONCE)


def _by_kernels(prepared: Prepared) -> bool:
    return prepared.ours and native.of(prepared.device, prepared.dtype) is not None


def fitting_tokens(
    prepared: Prepared,
    kept: Kept,
    *,
    limit_mb: float,
    most: int,
    longest: int,
    targets_share: float,
    trained_bytes: float,
) -> int:
    """The largest pack (flat tokens, at most `most`) whose estimate stays below `limit_mb`.

    Raises DoesNotFit, saying what would fit, when not even the longest row alone does.
    """

    def total(tokens: int) -> float:
        shape = Shape.full(tokens, longest, targets_share)
        return estimate(prepared, kept, shape, trained_bytes=trained_bytes).total_mb

    tokens = most
    while tokens > longest and total(tokens) > limit_mb:
        tokens = max(longest, tokens * 3 // 4)
    if total(tokens) <= limit_mb:
        return tokens
    shorter = longest
    while shorter > 16 and total(shorter) > limit_mb:
        shorter //= 2
    fits = f"max_length {shorter} would fit" if shorter > 16 else "a method that trains fewer weights may fit"
    raise DoesNotFit(
        f"memory: training needs about {total(longest) / 1000:.1f} GB for a row of {longest} tokens; "
        f"the budget is {limit_mb / 1000:.1f} GB; {fits}, or raise --budget.memory_gb"
    )


def _probe(lengths: Sequence[int], targets: int, prefix: Sequence[int]) -> PackedBatch:
    """A pack of rows of so many tokens, nothing shared, with `targets` labels at the end of the first."""
    rows: list[Encoded] = []
    for length in lengths:
        weights = [0.0] * (length + 1 - targets) + [1.0] * targets if not rows else [0.0] * (length + 1)
        rows.append(Encoded(tuple(range(length + 1)), tuple(weights)))
    return pack(rows, prefix=prefix, share=False)


def _whole_probe(lengths: Sequence[int], targets: int, prefix: Sequence[int]) -> PackedBatch:
    """As `_probe`, of rows that are read as wholes."""
    wanted = [tuple((place, 0) for place in range(targets if i == 0 else 1)) for i in range(len(lengths))]
    rows = [
        Encoded(tuple(range(length)), (1.0,) * len(own), labels=own)
        for length, own in zip(lengths, wanted, strict=True)
    ]
    return pack(rows, prefix=prefix)


def _saved_bytes(prepared: Prepared, batch: PackedBatch) -> int:
    """Bytes of the tensors that autograd keeps of one forward pass, each storage once, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in prepared.model.parameters()}
    saved: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        # Detached: an output that its own node keeps would keep that node, and with it the graph would never end.
        plain = tensor.detach()
        saved.setdefault(plain.untyped_storage().data_ptr(), plain)
        return plain

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms = forward(prepared, batch)
    del terms
    return sum(tensor.untyped_storage().nbytes() for place, tensor in saved.items() if place not in own)
