"""Learning by whatever way a method has: the loop, or where it can be found at once, a solution."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from tunesmith.engine import pooling
from tunesmith.engine.fit import Job, fit
from tunesmith.engine.journal import Fit
from tunesmith.engine.labels import scores_what, width
from tunesmith.engine.loop import Step
from tunesmith.methods._label_head import LabelHead, head_of


def learn(job: Job, identity: str, on_step: Callable[[Step], None] | None = None) -> Fit:
    """Train a job to its end; `identity` is the model's, by which pooled states are kept on disk.

    Raises Mistake as `fit`, and where a solution has too few rows.
    """
    head = head_of(job.prepared.model)
    if head is None:
        return fit(job, on_step)
    if job.validation:
        pooling.remember(job.prepared, job.validation, head, identity)
    states = pooling.remember(job.prepared, job.rows, head, identity)
    return _solve(job, head, states) if hasattr(job.project.method.module, "solve") else fit(job, on_step)


def _solve(job: Job, head: LabelHead, states: torch.Tensor) -> Fit:
    """One solution over all rows; the curve has the one point where it was found."""
    begun, rows = time.monotonic(), job.rows
    weights = torch.tensor([row.weights[0] for row in rows])
    if scores_what(job.prepared.model) == "several":
        targets = torch.zeros(len(rows), width(job.prepared))
        for place, row in enumerate(rows):
            targets[place] = torch.tensor([label % 2 for _, label in row.labels])
    else:
        targets = torch.tensor([row.labels[0][1] for row in rows])
    job.project.method.module.solve(job.prepared.model, states, targets, weights, job.project.seed)
    done = Fit(seconds=time.monotonic() - begun, tokens=sum(len(row.ids) for row in rows), receipt=job.receipt())
    if job.validation:
        done.best_loss = job.validation_loss()
    return done
