"""Labels of rows that are read as wholes: by the head a model was loaded with, or by one that a method put beside it.

What the model was loaded with says what is scored (transformers' own classes): one label for a row, several yes or no
labels for a row, a label for each token, where an answer starts and ends, the token behind a mask. Whichever it is, a
target is a label at a flat position, so that the loop, validation and memory estimate need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.core.records import Encoded
from tunesmith.engine import encoder, pooling
from tunesmith.engine.packing import PackedBatch, pack_whole, plan_whole
from tunesmith.engine.prepare import Prepared
from tunesmith.methods._label_head import head_of


def reads(prepared: Prepared) -> bool:
    """Whether rows are read and labelled, and not continued."""
    return prepared.kind == "encoder" or head_of(prepared.model) is not None


def scores_what(model: Any) -> str:
    """What is scored: "sequence", "several", "token", "span" or "masked"; "" for a body without a head."""
    name = type(model).__name__
    several = getattr(model.config, "problem_type", None) == "multi_label_classification"
    rows = "several" if several else "sequence"
    kinds = {
        "ForSequenceClassification": rows,
        "ForNextSentencePrediction": "sequence",
        "ForTokenClassification": "token",
        "ForQuestionAnswering": "span",
        "ForMaskedLM": "masked",
    }
    if head_of(model) is not None:
        return rows
    return next((kind for suffix, kind in kinds.items() if name.endswith(suffix)), "")


def width(prepared: Prepared) -> int:
    """Numbers a head gives for a row or a token."""
    masked = scores_what(prepared.model) == "masked"
    return prepared.vocabulary if masked else int(prepared.model.config.num_labels)


def label_logprobs(prepared: Prepared, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Log-probability (nats, `[targets]`) of each label where it stands, and whether it is the likeliest there.

    A row with several labels has a target ``2 k + 1`` for each label `k` that applies and ``2 k`` for each that does
    not. For spans label 0 is the start and 1 the end, each a choice among the row's tokens.
    """
    starts = torch.tensor([segment.start for segment in batch.segments], device=batch.index.device)
    row = torch.searchsorted(starts, batch.index, right=True) - 1
    place = batch.index - starts[row]
    kind = scores_what(prepared.model)
    if kind == "masked":
        shares = encoder.scores_at(prepared, batch, row, place).log_softmax(dim=-1)
        return shares.gather(-1, batch.labels[:, None]).squeeze(-1), shares.detach().argmax(-1) == batch.labels
    found, mask = _scores(prepared, batch)
    if kind == "several":
        leaning = found[row, batch.labels // 2] * (batch.labels % 2 * 2 - 1)
        return functional.logsigmoid(leaning), leaning.detach() > 0
    if kind == "span":
        shares = found.masked_fill(~mask.unsqueeze(-1), -torch.inf).log_softmax(dim=1)
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
    """The scores of each row, on the CPU: `[labels]`, or `[tokens, labels]` without the virtual tokens."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for group in plan_whole(rows, max_tokens=encoder.MAX_TOKENS, prefix_length=len(prefix)):
        batch = pack_whole([rows[i] for i in group], prefix=prefix).to(prepared.device)
        made, _ = _scores(prepared, batch)
        for i, one in zip(group, made.cpu(), strict=True):
            found[i] = one if one.dim() == 1 else one[len(prefix) : len(prefix) + len(rows[i].ids)]
        on_rows(len(group))
    return found


def _scores(prepared: Prepared, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Scores of rows or tokens, and of the latter which are none (empty for rows of a head beside the model)."""
    if (beside := head_of(prepared.model)) is not None:
        return beside(pooling.pooled(prepared, batch, beside)), batch.index.new_empty(0)
    found, padded = encoder.scores(prepared, batch)
    return found, padded.mask
