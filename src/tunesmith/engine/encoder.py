"""Encoders: rows padded to the longest of their pack, each architecture with its own attention, and a head's scores.

What the model was loaded with says what is scored (transformers' own classes): one label for a row, several yes or no
labels for a row, a label for each token, where an answer starts and ends, the token behind a mask. Whichever it is, a
target is a label at a flat position, so that the loop, validation and memory estimate need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.core.records import Encoded
from tunesmith.engine.packing import PackedBatch, pack_whole, plan_whole

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
    def of(cls, batch: PackedBatch, fill: int) -> Padded:
        """Lay the segments below one another, `fill` behind the shorter ones."""
        device = batch.tokens.device
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


def scores_what(model: Any) -> str:
    """What the model's head scores: "sequence", "several", "token", "span", "masked", or "" for a body alone."""
    name = type(model).__name__
    several = getattr(model.config, "problem_type", None) == "multi_label_classification"
    kinds = {
        "ForSequenceClassification": "several" if several else "sequence",
        "ForNextSentencePrediction": "sequence",
        "ForTokenClassification": "token",
        "ForQuestionAnswering": "span",
        "ForMaskedLM": "masked",
    }
    return next((kind for suffix, kind in kinds.items() if name.endswith(suffix)), "")


def width(prepared: Prepared) -> int:
    """Numbers the head gives for a row or a token."""
    masked = scores_what(prepared.model) == "masked"
    return prepared.vocabulary if masked else int(prepared.model.config.num_labels)


def scores(prepared: Prepared, batch: PackedBatch) -> tuple[Tensor, Padded]:
    """The head's scores, float32: `[rows, labels]`, or `[rows, longest, labels]` for tokens (start and end)."""
    config = prepared.model.config
    padded = Padded.of(batch, getattr(config, "pad_token_id", None) or 0)
    output = prepared.model(**padded.inputs(config))
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1).float(), padded
    return output.logits.float(), padded


def label_logprobs(prepared: Prepared, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Log-probability (nats, `[targets]`) of each label where it stands, and whether it is the likeliest there.

    A row with several labels has a target ``2 k + 1`` for each label `k` that applies and ``2 k`` for each that does
    not. For spans label 0 is the start and 1 the end, each a choice among the row's tokens.
    """
    found, padded = scores(prepared, batch)
    row = torch.searchsorted(padded.starts, batch.index, right=True) - 1
    place = batch.index - padded.starts[row]
    kind = scores_what(prepared.model)
    if kind == "several":
        leaning = found[row, batch.labels // 2] * (batch.labels % 2 * 2 - 1)
        return functional.logsigmoid(leaning), leaning.detach() > 0
    if kind == "span":
        shares = found.masked_fill(~padded.mask.unsqueeze(-1), -torch.inf).log_softmax(dim=1)
        return shares[row, place, batch.labels], shares.detach().argmax(dim=1)[row, batch.labels] == place
    at = found[row] if kind == "sequence" else found[row, place]
    shares = at.log_softmax(dim=-1)
    return shares.gather(-1, batch.labels[:, None]).squeeze(-1), at.detach().argmax(-1) == batch.labels


@torch.inference_mode()
def read(
    prepared: Prepared,
    rows: Sequence[Encoded],
    *,
    prefix: Sequence[int] = (),
    on_rows: Callable[[float], object] = lambda n: None,
) -> list[Tensor]:
    """The head's scores of each row, on the CPU: `[labels]`, or `[tokens, labels]` without the virtual tokens."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for group in plan_whole(rows, max_tokens=MAX_TOKENS, prefix_length=len(prefix)):
        batch = pack_whole([rows[i] for i in group], prefix=prefix).to(prepared.device)
        made, _ = scores(prepared, batch)
        for i, one in zip(group, made.cpu(), strict=True):
            found[i] = one if one.dim() == 1 else one[len(prefix) : len(prefix) + len(rows[i].ids)]
        on_rows(len(group))
    return found


@torch.inference_mode()
def embeddings(prepared: Prepared, rows: Sequence[Encoded], *, prefix: Sequence[int] = ()) -> Tensor:
    """The mean of each row's last hidden states over its tokens, `[rows, hidden]` float32, on the CPU."""
    found = torch.empty(len(rows), prepared.model.config.hidden_size)
    config = prepared.model.config
    for group in plan_whole(rows, max_tokens=MAX_TOKENS, prefix_length=len(prefix)):
        batch = pack_whole([rows[i] for i in group], prefix=prefix).to(prepared.device)
        padded = Padded.of(batch, getattr(config, "pad_token_id", None) or 0)
        states = prepared.model.base_model(**padded.inputs(config)).last_hidden_state.float()
        share = padded.mask / padded.mask.sum(dim=1, keepdim=True)
        found[group] = torch.einsum("rlh,rl->rh", states, share).cpu()
    return found
