"""A training run around the loop: the order of rows, validation, early stopping, checkpoints, receipt, deadline."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake
from tunesmith.core.files import disk_mistakes
from tunesmith.core.progress import say, track
from tunesmith.core.records import Encoded
from tunesmith.core.seed import derive
from tunesmith.engine import checkpoints, memory, optimizers, penalties
from tunesmith.engine.aside import Aside
from tunesmith.engine.journal import Fit as Fit
from tunesmith.engine.journal import Journal, Reading
from tunesmith.engine.loop import Guard, Penalty, Plan, Step, run
from tunesmith.engine.packing import PackedBatch, packs
from tunesmith.engine.prepare import Prepared
from tunesmith.engine.scoring import sequence_logprobs
from tunesmith.engine.solution import remember, solve
from tunesmith.methods._label_head import head_of
from tunesmith.methods._rate import suited

MOST_TOKENS = 2048
"""Flat tokens in a pack: past this a CPU gains no speed, and memory grows."""
MOST_TOKENS_BESIDE_LARGE = 512
"""The same where so much trains that memory is short: a pack's own cost, rounding all weights once, is a twentieth."""
SMALLEST_SHARE = 1 / 16
"""Share of the way out of a gate that is tried last: what is inside only closer by is hardly worth keeping."""
KEEP_EVERY = 25
"""Steps between the states that are kept to go back to."""
KEEP_EVERY_ON_GPU = 250
"""The same where they are large and steps are quick: writing one to disk takes as long as a dozen steps there."""
LARGE_MB = 200
"""Trained weights above this are put aside on disk, not in memory."""
_SETTINGS = {"method", "objective", "optimizer", "lr_scheduler_type", "warmup_ratio", "weight_decay", "momentum"}
_SETTINGS |= {"max_grad_norm", "eval_steps", "early_stopping_patience", "save_steps", "precision", "seed", "forgetting"}
_SETTINGS |= {"quantization", "lr_scheduler_kwargs"}


@dataclass
class Job:
    """A model with a method attached, the rows it learns from, and how.

    `parameters` are what the method's `param_groups` gave, or all that train. With a `folder` every step is written to
    `metrics.jsonl` and checkpoints are kept, from which the same job goes on bit for bit; without, nothing is written.
    `seconds` is a deadline: the run stops in good order when it has passed. `penalties` pull beside the objective;
    `gate` is asked at every validation, and a run that it finds outside ends with the best weights that were inside.
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
    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    gate: Callable[[], Reading] | None = None
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
        rate = project.learning_rate or suited(project.method.module, self.prepared.kind)
        usual: str = getattr(project.method.module, "SCHEDULE", "cosine")
        return Plan(
            max(1, steps),
            rate,
            project.lr_scheduler_type or usual,
            project.lr_scheduler_kwargs,
            project.warmup_ratio,
            project.max_grad_norm,
        )

    @cached_property
    def longest(self) -> int:
        """Tokens in the longest row, virtual tokens included."""
        return len(self.prefix) + max(len(row.ids) for row in self.shown)

    @cached_property
    def shown(self) -> Sequence[Encoded]:
        """The rows as the objective shows them in the first epoch: as long, and with as many targets, as ever."""
        return [self.row(0, place) for place in range(len(self.rows))]

    def row(self, epoch: int, place: int) -> Encoded:
        """A row as the objective shows it in an epoch, which follows from the seed (masked anew each time, say)."""
        return _shown(self.project, self.rows[place], "rows", epoch, place)

    @cached_property
    def kept(self) -> memory.Kept:
        """What autograd keeps of a pack, counted on this model with its method."""
        return memory.count(self.prepared, self.prefix)

    @cached_property
    def pack_tokens(self) -> int:
        """Flat tokens a pack may hold within the memory budget; raises Mistake when none fit.

        Where the longest row fits only if layers are computed again in the backward pass, they will be.
        """
        try:
            return self._fitting_tokens()
        except memory.DoesNotFit:
            if not self.prepared.ours or self.prepared.recompute:
                raise
        self.prepared = replace(self.prepared, recompute=True)
        del self.kept
        return self._fitting_tokens()

    def _fitting_tokens(self) -> int:
        targets = sum(map(_targets, self.shown)) / max(1, sum(len(row.ids) for row in self.shown))
        return memory.fitting_tokens(
            self.prepared,
            self.kept,
            limit_mb=memory_limit_mb(self.project),
            most=max(MOST_TOKENS_BESIDE_LARGE if self.is_large else MOST_TOKENS, self.longest),
            longest=self.longest,
            targets_share=targets,
            trained_bytes=self.trained_bytes,
        )

    @property
    def is_large(self) -> bool:
        """Whether copies of what trains belong on disk."""
        return 4 * sum(parameter.numel() for parameter in self.trained) > LARGE_MB * memory.MB

    @property
    def trained_bytes(self) -> float:
        """What comes to the trained weights: gradients, optimizer slots, and, unless on disk, good and best states.

        The largest weight's gradient is there twice more for a moment: of its two uses where it is tied, or as a sum.
        """
        sizes = [parameter.numel() for parameter in self.trained]
        weights = sum(sizes)
        slots = optimizers.slot_numbers(self.project.optimizer, self.trained, self.embeddings)
        aside = 0 if self.is_large else weights + slots + (weights if self.validation or self.gate else 0)
        return 4 * (weights + slots + aside + 2 * max(sizes))

    @property
    def embeddings(self) -> list[Tensor]:
        """The matrices that hold a row a token: of the embedding, and of the head."""
        model = self.prepared.model
        return [layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer]

    def dearest_pack(self) -> memory.Shape:
        """The shape of the pack that takes most memory, found among the fullest steps of the first epoch."""
        order, a_step = self.order(0), self.rows_a_step
        steps = range(1, min(self.plan.steps, len(order) // a_step) + 1)
        lengths = [[len(self.shown[i].ids) for i in order[(s - 1) * a_step : s * a_step]] for s in steps]
        fullest = sorted(steps, key=lambda s: -sum(lengths[s - 1]))[:3]
        widest = sorted(steps, key=lambda s: -sum(length**2 for length in lengths[s - 1]))[:3]
        shapes = [memory.Shape.of(batch) for step in {*fullest, *widest} for batch in self.batches(step)]
        return max(shapes, key=self.kept.bytes)

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
            chosen.append(self.row(epoch, self._epoch(epoch)[at]))
        found = packs(chosen, max_tokens=self.pack_tokens, prefix=self.prefix, share=self.prepared.shares)
        return [batch for _, batch in found]

    def _epoch(self, number: int) -> list[int]:
        if number not in self._orders:
            self._orders = {number: self.order(number)}
        return self._orders[number]

    def validation_loss(self) -> float:
        """Mean loss a target over the validation rows, nats; the objective shows them alike every time."""
        project = self.project
        rows = [_shown(project, row, "validation", place) for place, row in enumerate(self.validation)]
        sums, counts = sequence_logprobs(self.prepared, rows, prefix=self.prefix, max_tokens=2 * self.pack_tokens)
        return float(-sums.sum() / counts.sum())

    def receipt(self) -> dict[str, Any]:
        """The account of the tokens before step 1. Raises Mistake when nothing would be trained."""
        trained, total = sum(map(_targets, self.shown)), sum(len(row.ids) for row in self.shown)
        if not trained:
            raise Mistake("no token of any row is trained; expected answers; look at `tunesmith data check`")
        dearest = self.dearest_pack()  # chooses how the model is prepared, too
        told = memory.estimate(self.prepared, self.kept, dearest, trained_bytes=self.trained_bytes)
        return {
            "rows": len(self.rows),
            "rows_sha256": _digest(self.rows),
            "validation_rows": len(self.validation),
            "validation_sha256": _digest(self.validation),
            "tokens": total,
            "trained_tokens": trained,
            "longest_row": self.longest,
            "steps": self.plan.steps,
            "rows_a_step": self.rows_a_step,
            "pack_tokens": self.pack_tokens,
            "recompute": self.prepared.recompute,
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


def fit(
    job: Job,
    on_step: Callable[[Step], None] | None = None,
    on_validation: Callable[[int, float], None] | None = None,
) -> Fit:
    """Train to the end, the deadline or the point where validation stands still; leaves the best weights in place.

    `on_validation` is told the step and its validation loss; what it raises ends the run.

    Ctrl-C waits for the end of the step, keeps a checkpoint and is passed on; a second one does not wait. Raises
    Mistake for a run that cannot fit into memory, has nothing to learn, or diverges. A method that can is solved at
    once, without a step.
    """
    head, module = head_of(job.prepared.model), job.project.method.module
    if head is not None:
        # Apart: a race compares on fewer validation rows, and the training rows' states are to be found again after it.
        states = remember(job.prepared, head, job.rows)
        if job.validation:
            remember(job.prepared, head, job.validation)
        if hasattr(module, "solve"):
            begun = time.monotonic()
            solve(job.prepared, module, job.rows, states, job.project.seed)
            loss = job.validation_loss() if job.validation else math.inf
            return Fit(seconds=time.monotonic() - begun, best_loss=loss, receipt=job.receipt())
    with _put_aside(job) as (good, best):
        return _fit(job, on_step, on_validation, good, best)


def _fit(
    job: Job,
    on_step: Callable[[Step], None] | None,
    on_validation: Callable[[int, float], None] | None,
    good: Aside,
    best: Aside,
) -> Fit:
    project, model = job.project, job.prepared.model
    journal = Journal(job.folder, model, Fit(receipt=job.receipt()), _settings(project), best)
    optimizer = _optimizer(job)
    keep_every = KEEP_EVERY_ON_GPU if job.is_large and job.prepared.device.type == "cuda" else KEEP_EVERY
    guard = Guard(job.trained, optimizer, keep_every=min(keep_every, project.save_steps or keep_every), aside=good)
    guard.keep(0)
    start = journal.resume(guard)
    if job.gate is not None and not journal.best:
        journal.remember_best()  # of what is inside the gate, the start is all there is
    if start:
        job.pack_tokens = journal.fit.receipt["pack_tokens"]  # other packs would add up in another order
    every = project.eval_steps or max(1, min(100, job.plan.steps // 6))
    patience = project.early_stopping_patience or math.inf
    begun, before = time.monotonic(), journal.fit.seconds
    steps = run(
        job.prepared,
        project.objective.module,
        project.objective.config,
        job.batches,
        optimizer,
        job.plan,
        guard,
        start=start if journal.since_best < patience and not journal.fit.stopped else job.plan.steps,
        penalties={**penalties.of_method(project.method.module), **job.penalties},
        resting=getattr(project.method.module, "resting", None),
        on_step=getattr(project.method.module, "on_step", None),
    )
    with track(job.plan.steps - start, "steps", job.description) as bar, _interrupt_after_a_step() as interrupted:
        for step in steps:
            journal.note(step)
            journal.fit.seconds = before + time.monotonic() - begun
            late = job.seconds is not None and journal.fit.seconds >= job.seconds
            due = step.number % every == 0 or step.number == job.plan.steps or late
            if due and (job.validation or job.gate):
                asked = time.monotonic()
                loss = job.validation_loss() if job.validation else None
                journal.validated(step.number, loss, job.gate() if job.gate else None)
                journal.fit.validation_seconds += time.monotonic() - asked
                journal.fit.seconds = before + time.monotonic() - begun
                if on_validation is not None and loss is not None:
                    on_validation(step.number, loss)
            bar.advance(1, loss=step.loss, tokens=f"{journal.fit.tokens / max(journal.fit.seconds, 1e-9):,.0f}/s")
            journal.keep(step.number, guard, project.save_steps)
            if on_step is not None:
                on_step(step)
            if interrupted():
                journal.checkpoint(step.number, guard)
                raise KeyboardInterrupt
            if late and step.number < job.plan.steps and not journal.fit.stopped:
                journal.fit.stopped = f"time: {job.seconds:.0f} s were given"
            if journal.fit.stopped or journal.since_best >= patience:
                break
    if journal.since_best >= patience:
        journal.fit.stopped = f"no gain in {project.early_stopping_patience} validations"
    if job.gate is not None and journal.fit.stopped and job.gate().outside:
        _half_way_back(job, journal)
    journal.restore_best()
    return journal.fit


def _half_way_back(job: Job, journal: Journal) -> None:
    """From outside the gate go half the way back to the best weights inside, and again, until the gate is passed."""
    assert job.gate is not None
    trained = dict(checkpoints.trained(job.prepared.model))
    share = 1.0
    while share > SMALLEST_SHARE and job.gate().outside:
        share /= 2
        for name, best in journal.best.items():
            trained[name].data.lerp_(best.to(trained[name].device), 0.5)
    inside = not job.gate().outside
    journal.nearer(share if inside else 0.0, job.validation_loss() if inside and job.validation else None)


def _optimizer(job: Job) -> torch.optim.Optimizer:
    project = job.project
    groups = getattr(project.method.module, "param_groups", None)
    return optimizers.make(
        project.optimizer,
        groups(job.prepared.model) if groups else job.trained,
        learning_rate=job.plan.learning_rate,
        weight_decay=project.weight_decay,
        momentum=project.momentum,
        embeddings=job.embeddings,
    )


@contextmanager
def _put_aside(job: Job) -> Iterator[tuple[Aside, Aside]]:
    """Where the state to go back to and the best weights lie meanwhile: in memory, or on disk where they are large."""
    if not job.is_large:
        yield Aside(), Aside()
        return
    folder = job.folder / ".aside" if job.folder else Path(tempfile.mkdtemp(prefix="tunesmith-"))
    with disk_mistakes(folder, "set output_dir to a place with room"):
        shutil.rmtree(folder, ignore_errors=True)  # a killed process leaves it
        folder.mkdir(parents=True)
    try:
        yield Aside(folder / "good.safetensors"), Aside(folder / "best.safetensors")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _interrupt_after_a_step() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait: inside a step weights, optimizer and random numbers do not fit together. Gives whether it came.

    The second one interrupts at once. Signals reach the main thread alone; elsewhere nothing changes.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    usual = signal.getsignal(signal.SIGINT)

    def wait(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, usual)
        say("stopping after this step; press Ctrl-C again to stop at once")

    signal.signal(signal.SIGINT, wait)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, usual)


def _settings(project: Project) -> dict[str, Any]:
    """What makes a run what it is, beside its rows and plan: it cannot go on under others. As JSON gives it back."""
    told = {key: value for key, value in project.as_dict().items() if key in _SETTINGS}
    return dict(json.loads(json.dumps(told)))


def _shown(project: Project, row: Encoded, *of: str | int) -> Encoded:
    rows = getattr(project.objective.module, "rows", None)
    shown: Encoded = rows(row, project.objective.config, derive(project.seed, *of)) if rows else row
    return shown


def _targets(row: Encoded) -> int:
    return sum(weight > 0 for weight in row.weights)


def _digest(rows: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.ids, row.weights, *row.labels)).encode())
    return digest.hexdigest()
