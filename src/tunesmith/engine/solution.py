"""What can be found at once: a head's weights from all rows' pooled states, without steps."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine import pooling
from tunesmith.engine.labels import scores_what, width
from tunesmith.engine.prepare import Prepared
from tunesmith.methods._label_head import LabelHead


def remember(prepared: Prepared, head: LabelHead, rows: Sequence[Encoded]) -> torch.Tensor:
    """The pooled states of rows, which the head looks up from now on. Raises Mistake for rows that are not labelled."""
    if not all(row.labels for row in rows):
        raise Mistake("method: this one labels whole rows; got rows to be continued; type --method.name lora")
    return pooling.remember(prepared, rows, head)


def solve(prepared: Prepared, method: ModuleType, rows: Sequence[Encoded], states: torch.Tensor, seed: int) -> None:
    """Let `method` find its weights from `states [rows, hidden]` and the rows' labels.

    Raises Mistake where it has too few rows.
    """
    weights = torch.tensor([row.weights[0] for row in rows])
    if scores_what(prepared.model) == "several":
        targets = torch.zeros(len(rows), width(prepared))
        for place, row in enumerate(rows):
            targets[place] = torch.tensor([label % 2 for _, label in row.labels])
    else:
        targets = torch.tensor([row.labels[0][1] for row in rows])
    method.solve(prepared.model, states, targets, weights, seed)
