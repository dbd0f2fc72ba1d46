"""Encoders: rows padded to the longest of their pack, each architecture with its own attention and its own head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.engine.packing import PackedBatch

if TYPE_CHECKING:
    from tunesmith.engine.prepare import Prepared

MAX_TOKENS = 4096
"""Padded tokens in a pack when nothing is kept for a backward pass."""


@dataclass(frozen=True, slots=True)
class Padded:
    """A whole batch as a rectangle: `ids`, `mask` (True: a token) and `types` (1: second text) `[rows, longest]`."""

    ids: Tensor
    mask: Tensor
    types: Tensor
    starts: Tensor

    @classmethod
    def of(cls, batch: PackedBatch, config: Any) -> Padded:
        """Lay the segments below one another, the model's padding behind the shorter ones."""
        device, fill = batch.tokens.device, getattr(config, "pad_token_id", None) or 0
        starts = torch.tensor([segment.start for segment in batch.segments], device=device)
        lengths = torch.tensor([segment.length for segment in batch.segments], device=device)
        seconds = torch.tensor([segment.second or segment.length for segment in batch.segments], device=device)
        place = torch.arange(int(lengths.max()), device=device)
        mask = place < lengths[:, None]
        ids = batch.tokens[(starts[:, None] + place).clamp(max=len(batch.tokens) - 1)]
        types = (place >= seconds[:, None]) & mask
        return cls(ids.masked_fill(~mask, fill), mask, types.long(), starts)

    def inputs(self, config: Any) -> dict[str, Tensor]:
        """What a model of transformers takes; types only where it tells texts apart."""
        told = {"input_ids": self.ids, "attention_mask": self.mask.long()}
        return told | ({"token_type_ids": self.types} if (getattr(config, "type_vocab_size", 0) or 0) > 1 else {})


def scores(prepared: Prepared, batch: PackedBatch) -> tuple[Tensor, Padded]:
    """What the model's own head says, float32: `[rows, labels]`, or `[rows, longest, labels]` for tokens."""
    config = prepared.model.config
    padded = Padded.of(batch, config)
    output = prepared.model(**padded.inputs(config))
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1).float(), padded
    return output.logits.float(), padded


def scores_at(prepared: Prepared, batch: PackedBatch, row: Tensor, place: Tensor) -> Tensor:
    """What a head over the vocabulary says of the tokens at `place` of `row` alone, `[tokens, vocabulary]` float32.

    The head looks at a token by itself, and is half of the work of a small encoder: the other tokens do not get to it.
    """
    config, body = prepared.model.config, prepared.model.base_model

    def only_these(module: Any, given: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[row, place].unsqueeze(0)
        return output

    hook = body.register_forward_hook(only_these)
    try:
        return prepared.model(**Padded.of(batch, config).inputs(config)).logits[0].float()  # type: ignore[no-any-return]
    finally:
        hook.remove()
