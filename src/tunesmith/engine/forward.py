"""One pass of a prepared model over a packed batch, with logits only where something is predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.engine.attention import Cache, Context, spans
from tunesmith.engine.packing import PackedBatch
from tunesmith.engine.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Terms:
    """What an objective is computed from, an entry a target: `logprobs [N]` (nats), and if the label was likeliest."""

    logprobs: Tensor
    correct: Tensor


def logits(prepared: Prepared, batch: PackedBatch, index: Tensor, cache: Cache | None = None) -> Tensor:
    """Logits `[len(index), vocabulary]` (float32) at the flat positions `index`; the others are never computed."""
    context = Context(spans(batch.segments), prepared.dtype, cache)
    output = prepared.model(
        input_ids=batch.tokens.unsqueeze(0),
        position_ids=batch.positions.unsqueeze(0),
        use_cache=False,
        packed=context,
        logits_to_keep=index,
    )
    scores: Tensor = output.logits[0].float()
    return scores


def forward(prepared: Prepared, batch: PackedBatch) -> Terms:
    """Log-probabilities of a batch's labels; positions that predict several labels are computed once."""
    batch = batch.to(prepared.device)
    index, back = torch.unique(batch.index, return_inverse=True)
    scores = logits(prepared, batch, index)
    normaliser = torch.logsumexp(scores, dim=-1)
    logprobs = scores[back, batch.labels] - normaliser[back]
    return Terms(logprobs, scores.detach().argmax(-1)[back] == batch.labels)
