"""A training run around the loop: the order of rows, validation, early stopping, checkpoints, receipt, deadline."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import say, track
from tunesmith.core.records import Encoded
from tunesmith.core.seed import derive
from tunesmith.engine import checkpoints, memory, optimizers
from tunesmith.engine.loop import Guard, Plan, Step, run
from tunesmith.engine.packing import PackedBatch, pack, plan
from tunesmith.engine.prepare import Prepared
from tunesmith.engine.scoring import sequence_logprobs

MOST_TOKENS = 2048
"""Flat tokens in a pack: past this a CPU gains no speed, and memory grows."""
KEEP_EVERY = 25
"""Steps between the states that are kept to go back to, in memory and as checkpoints."""


@dataclass(slots=True)
class Fit:
    """What a run did. `curve` has a point a validation: step, training loss since the last, validation loss (nats)."""

    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    stopped: str = ""
    curve: list[dict[str, float]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    receipt: dict[str, Any] = field(default_factory=dict)


@dataclass
class Job:
    """A model with a method attached, the rows it learns from, and how.

    `parameters` are what the method's `param_groups` gave, or all that train. With a `folder` every step is written to
    `metrics.jsonl` and checkpoints are kept, from which the same job goes on bit for bit; without, nothing is written.
    `seconds` is a deadline: the run stops in good order when it has passed.
    """

    prepared: Prepared
    project: Project
    rows: Sequence[Encoded]
    validation: Sequence[Encoded] = ()
    prefix: Sequence[int] = ()
    folder: Path | None = None
    steps: int | None = None
    seconds: float | None = None
    description: str = "train"
    _orders: dict[int, list[int]] = field(default_factory=dict)

    @cached_property
    def rows_a_step(self) -> int:
        """Rows in an optimizer step."""
        wanted = self.project.per_device_train_batch_size * self.project.gradient_accumulation_steps
        return min(wanted, len(self.rows))

    @cached_property
    def plan(self) -> Plan:
        """Steps and learning rate."""
        project = self.project
        epochs = math.ceil(project.num_train_epochs * len(self.rows) / self.rows_a_step)
        steps = self.steps or min(epochs, project.max_steps or epochs)
        rate = project.learning_rate or project.method.module.LEARNING_RATE
        return Plan(max(1, steps), rate, project.lr_scheduler_type, project.warmup_ratio, project.max_grad_norm)

    @cached_property
    def longest(self) -> int:
        """Tokens in the longest row, virtual tokens included."""
        return len(self.prefix) + max(len(row.ids) for row in self.rows)

    @cached_property
    def pack_tokens(self) -> int:
        """Flat tokens a pack may hold within the memory budget; raises Mistake when none fit."""
        project, targets = self.project, sum(map(_targets, self.rows)) / max(1, sum(len(r.ids) for r in self.rows))
        return memory.fitting_tokens(
            self.prepared,
            limit_mb=memory_limit_mb(project),
            most=max(MOST_TOKENS, self.longest),
            longest=self.longest,
            targets_share=targets,
            trainable=sum(p.numel() for p in self.trained),
            optimizer=project.optimizer,
        )

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that train, each once."""
        return [parameter for _, parameter in checkpoints.trained(self.prepared.model)]

    def order(self, epoch: int) -> list[int]:
        """The rows of an epoch in the order they are taken; it follows from the seed."""
        generator = torch.Generator().manual_seed(derive(self.project.seed, "order", epoch))
        return torch.randperm(len(self.rows), generator=generator).tolist()

    def batches(self, step: int) -> list[PackedBatch]:
        """The packs of optimizer step `step` (from 1): the next rows of the endless row of epochs."""
        chosen: list[Encoded] = []
        for place in range((step - 1) * self.rows_a_step, step * self.rows_a_step):
            epoch, at = divmod(place, len(self.rows))
            chosen.append(self.rows[self._epoch(epoch)[at]])
        return [
            pack([chosen[i] for i in group], prefix=self.prefix)
            for group in plan(chosen, max_tokens=self.pack_tokens, prefix_length=len(self.prefix))
        ]

    def _epoch(self, number: int) -> list[int]:
        if number not in self._orders:
            self._orders = {number: self.order(number)}
        return self._orders[number]

    def validation_loss(self) -> float:
        """Mean loss a target over the validation rows, nats."""
        sums, counts = sequence_logprobs(
            self.prepared, self.validation, prefix=self.prefix, max_tokens=2 * self.pack_tokens
        )
        return float(-sums.sum() / counts.sum())

    def receipt(self) -> dict[str, Any]:
        """The account of the tokens before step 1. Raises Mistake when nothing would be trained."""
        trained, total = sum(map(_targets, self.rows)), sum(len(row.ids) for row in self.rows)
        if not trained:
            raise Mistake("no token of any row is trained; expected answers; look at `tunesmith data check`")
        longest = self.longest
        told = memory.estimate(
            self.prepared,
            tokens=self.pack_tokens,
            targets=round(self.pack_tokens * trained / total) + 1,
            longest=longest,
            trainable=sum(p.numel() for p in self.trained),
            optimizer=self.project.optimizer,
        )
        return {
            "rows": len(self.rows),
            "rows_sha256": _digest(self.rows),
            "tokens": total,
            "trained_tokens": trained,
            "longest_row": longest,
            "steps": self.plan.steps,
            "rows_a_step": self.rows_a_step,
            "pack_tokens": self.pack_tokens,
            "epochs": round(self.plan.steps * self.rows_a_step / len(self.rows), 3),
            "learning_rate": self.plan.learning_rate,
            "trainable_parameters": sum(p.numel() for p in self.trained),
            "memory_estimate_mb": told.as_dict(),
        }


def memory_limit_mb(project: Project) -> float:
    """The memory a run may take, in MB: the budget, or four fifths of what this process could have."""
    if project.budget.memory_gb is not None:
        return project.budget.memory_gb * 1000
    import psutil

    return 0.8 * float(psutil.virtual_memory().available) / memory.MB + memory.held_mb()


def fit(job: Job, on_step: Callable[[Step], None] | None = None) -> Fit:
    """Train to the end, the deadline or the point where validation stands still; leaves the best weights in place.

    Ctrl-C keeps a checkpoint and is passed on. Raises Mistake for a run that cannot fit into memory, has nothing to
    learn, or diverges.
    """
    project, model = job.project, job.prepared.model
    receipt = job.receipt()
    groups = getattr(project.method.module, "param_groups", None)
    optimizer = optimizers.make(
        project.optimizer,
        groups(model) if groups else job.trained,
        learning_rate=job.plan.learning_rate,
        weight_decay=project.weight_decay,
        momentum=project.momentum,
    )
    guard = Guard(job.trained, optimizer, keep_every=project.save_steps or KEEP_EVERY)
    guard.keep(0)
    state = _State(job, Fit(receipt=receipt))
    start = state.resume(guard)
    every = project.eval_steps or max(1, min(100, job.plan.steps // 10))
    begun, before = time.monotonic(), state.fit.seconds
    steps = run(
        job.prepared,
        project.objective.module,
        project.objective.config,
        job.batches,
        optimizer,
        job.plan,
        guard,
        start=start,
        on_step=getattr(project.method.module, "on_step", None),
    )
    with track(job.plan.steps - start, "steps", job.description) as bar:
        try:
            for step in steps:
                state.note(step)
                state.fit.seconds = before + time.monotonic() - begun
                late = job.seconds is not None and state.fit.seconds >= job.seconds
                if job.validation and (step.number % every == 0 or step.number == job.plan.steps or late):
                    state.validate(step.number)
                bar.advance(1, loss=step.loss, tokens=f"{state.fit.tokens / state.fit.seconds:,.0f}/s")
                if step.number % guard.keep_every == 0:
                    state.checkpoint(step.number, guard)
                if on_step is not None:
                    on_step(step)
                if late and step.number < job.plan.steps:
                    state.fit.stopped = f"time: {job.seconds:.0f} s were given"
                    break
                if state.patience_over():
                    state.fit.stopped = f"no gain in {project.early_stopping_patience} validations"
                    break
        except KeyboardInterrupt:
            state.checkpoint(state.fit.steps, guard)
            raise
    state.restore_best()
    return state.fit


class _State:
    """What `fit` remembers from step to step, and writes down."""

    def __init__(self, job: Job, fit: Fit) -> None:
        self.job, self.fit = job, fit
        self.best: dict[str, Tensor] | None = None
        self.losses: list[float] = []
        self.since_best = 0

    def resume(self, guard: Guard) -> int:
        """Go on from the latest checkpoint of the job's folder; returns the step to go on after."""
        folder = self.job.folder
        if folder is None:
            return 0
        found = checkpoints.latest(folder / "checkpoints")
        metrics = folder / "metrics.jsonl"
        if found is None:
            metrics.unlink(missing_ok=True)
            return 0
        step, state, self.best = checkpoints.load(found, self.job.prepared.model, guard)
        receipt, kept_receipt = self.fit.receipt, state["receipt"]
        if any(receipt[key] != kept_receipt[key] for key in receipt.keys() - {"memory_estimate_mb", "pack_tokens"}):
            raise Mistake(
                f"{folder}: holds a run with other rows or settings; choose another --output_dir or remove it"
            )
        self.job.pack_tokens = kept_receipt["pack_tokens"]  # other packs would add up in another order
        self.fit = Fit(**{**state["fit"], "receipt": kept_receipt})
        self.losses, self.since_best = state["recent"], state["since_best"]
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        kept = [line for line in lines if _whole(line) and json.loads(line)["step"] <= step]
        metrics.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        say(f"{folder}: going on after step {step}")
        return step

    def note(self, step: Step) -> None:
        """Write a step down."""
        self.fit.steps, self.fit.tokens = step.number, self.fit.tokens + step.tokens
        self.losses.append(step.loss)
        if step.event:
            self.fit.events.append(f"step {step.number}: {step.event}")
            say(self.fit.events[-1])
        line = {
            "step": step.number,
            "loss": step.loss,
            "learning_rate": step.learning_rate,
            "grad_norm": step.grad_norm,
        }
        self._write({**line, "tokens": step.tokens, **step.metrics, **({"event": step.event} if step.event else {})})

    def validate(self, step: int) -> None:
        """Measure the validation loss, and keep the weights when it is the best so far."""
        loss = self.job.validation_loss()
        recent, self.losses = sum(self.losses) / max(1, len(self.losses)), []
        self.fit.curve.append({"step": step, "loss": recent, "validation": loss})
        self._write({"step": step, "validation_loss": loss})
        self.since_best += 1
        if loss < self.fit.best_loss:
            self.fit.best_loss, self.fit.best_step, self.since_best = loss, step, 0
            trained = checkpoints.trained(self.job.prepared.model)
            self.best = {name: parameter.detach().clone() for name, parameter in trained}

    def patience_over(self) -> bool:
        """Whether validation has stood still for as long as the project allows."""
        patience = self.job.project.early_stopping_patience
        return patience is not None and self.since_best >= patience

    def checkpoint(self, step: int, guard: Guard) -> None:
        """Keep everything that is needed to go on after `step`."""
        if self.job.folder is None or step == 0:
            return
        fit = {name: getattr(self.fit, name) for name in Fit.__dataclass_fields__ if name != "receipt"}
        fit["best_loss"] = self.fit.best_loss if math.isfinite(self.fit.best_loss) else 1e30
        told = {"fit": fit, "receipt": self.fit.receipt, "recent": self.losses, "since_best": self.since_best}
        checkpoints.save(self.job.folder / "checkpoints", step, self.job.prepared.model, guard, told, self.best)

    def restore_best(self) -> None:
        """Put the best validated weights into the model; the last ones stay when nothing was validated."""
        if self.best is not None:
            for name, parameter in checkpoints.trained(self.job.prepared.model):
                parameter.data.copy_(self.best[name])

    def _write(self, line: dict[str, Any]) -> None:
        if self.job.folder is not None:
            with (self.job.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _targets(row: Encoded) -> int:
    return sum(weight > 0 for weight in row.weights)


def _digest(rows: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.ids, row.weights)).encode())
    return digest.hexdigest()


def _whole(line: str) -> bool:
    """Whether a line was written to its end before the process died."""
    try:
        return "step" in json.loads(line)
    except json.JSONDecodeError:
        return False
