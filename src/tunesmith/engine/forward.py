"""One pass of a prepared model over a packed batch, with logits only where something is predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from tunesmith.engine import head, labels, text_to_text
from tunesmith.engine.cache import Cache
from tunesmith.engine.flat import FILLED, inputs
from tunesmith.engine.packing import PackedBatch
from tunesmith.engine.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Terms:
    """What an objective is computed from, an entry a target: `logprobs [N]` (nats), and if the label was likeliest."""

    logprobs: Tensor
    correct: Tensor


def logits(prepared: Prepared, batch: PackedBatch, index: Tensor, cache: Cache | None = None) -> Tensor:
    """Logits `[len(index), vocabulary]` (float32) at the flat positions `index`; the others are never computed."""
    if prepared.ours:
        scores: Tensor = prepared.head(_hidden(prepared, batch, index, cache))
        return scores[: len(index)].float()
    output = prepared.model(**inputs(prepared, batch, cache), logits_to_keep=index)
    return output.logits[0].float()  # type: ignore[no-any-return]  # of transformers


def target_logits(prepared: Prepared, batch: PackedBatch) -> Tensor:
    """Logits `[targets, vocabulary]` (float32) from which each of a batch's labels is predicted, in their order."""
    if prepared.kind == "encoder-decoder":
        return text_to_text.target_logits(prepared, batch)
    return logits(prepared, batch, batch.index)


def forward(prepared: Prepared, batch: PackedBatch) -> Terms:
    """Log-probabilities of a batch's labels; positions that predict several labels are computed once."""
    batch = batch.to(prepared.device)
    if labels.reads(prepared):
        return Terms(*labels.label_logprobs(prepared, batch))
    if prepared.kind != "decoder":
        scores = target_logits(prepared, batch)
        chosen = scores.gather(1, batch.labels.unsqueeze(1)).squeeze(1)
        return Terms(chosen - torch.logsumexp(scores, dim=-1), scores.detach().argmax(-1) == batch.labels)
    index, back = torch.unique(batch.index, return_inverse=True)
    if prepared.ours and head.fits(prepared.head):
        hidden = _hidden(prepared, batch, index)
        return Terms(*head.label_logprobs(hidden, prepared.head, back, batch.labels))
    scores = logits(prepared, batch, index)
    normaliser = torch.logsumexp(scores, dim=-1)
    logprobs = scores[back, batch.labels] - normaliser[back]
    return Terms(logprobs, scores.detach().argmax(-1)[back] == batch.labels)


def _hidden(prepared: Prepared, batch: PackedBatch, index: Tensor, cache: Cache | None = None) -> Tensor:
    """The last hidden states at the flat positions `index` and some more, of a model whose layers are ours."""
    index = pad(index, (0, -len(index) % (FILLED // 2)))
    output = prepared.model.model(**inputs(prepared, batch, cache, keep=index))
    return output.last_hidden_state[0]  # type: ignore[no-any-return]  # of transformers
