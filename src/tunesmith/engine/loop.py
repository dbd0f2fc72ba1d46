"""The one training loop: a generator that takes a step and yields what happened; everything else stands outside it.

Where batches come from is the caller's affair: `batches(step)` gives the packs of an optimizer step, from a data set
in an order that follows from the seed, or from rollouts that were made a moment ago. Since it depends on the step
alone, a run resumes by starting at another step.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.config import LrSchedulerKwargs
from tunesmith.core.errors import Mistake
from tunesmith.engine import optimizers
from tunesmith.engine.aside import Aside
from tunesmith.engine.forward import forward
from tunesmith.engine.packing import PackedBatch
from tunesmith.engine.prepare import Prepared

PATIENCE_WITH_NAN = 5
"""Bad steps in a row after which a run is given up: it has diverged, and skipping batches will not help."""


Penalty = Callable[[Prepared, int, float], float]
"""Something beside the objective that a step keeps small: called with the model, the step and a scale, it adds `scale`
times its gradient to the weights' and returns its value. It depends on nothing else, so that a run resumes."""


class Diverged(Mistake):
    """Training that went nowhere for several steps in a row."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an optimizer step did. `loss` is the mean over its targets (nats, for sft); `event` is "" or a warning."""

    number: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    metrics: dict[str, float]
    event: str = ""


@dataclass(slots=True)
class Plan:
    """The numbers of a run: how many steps, how fast, how carefully."""

    steps: int
    learning_rate: float
    lr_scheduler_type: str = "cosine"
    lr_scheduler_kwargs: LrSchedulerKwargs = field(default_factory=LrSchedulerKwargs)
    warmup_ratio: float = 0.05
    max_grad_norm: float = 1.0


@dataclass(slots=True)
class Guard:
    """Remembers a good state, and goes back to it when the loss is no number or leaps.

    A step whose loss or gradient is not finite is not applied, so the weights before it are the last good ones. A
    loss far above what was usual (`leap` times the median of the last 32, plus 1 nat) means that an earlier update
    did harm: weights and optimizer go back to the state kept last, at the latest `keep_every` steps ago.
    """

    parameters: list[Tensor]
    optimizer: torch.optim.Optimizer
    keep_every: int = 25
    leap: float = 3.0
    aside: Aside = field(default_factory=Aside)
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    bad: int = 0
    kept: int | None = None
    numbers: dict[str, Any] = field(default_factory=dict)

    def keep(self, number: int) -> None:
        """Remember the present state as good, in the place of the one remembered before."""
        if number == self.kept:
            return
        slots, self.numbers = optimizers.slots(self.optimizer)
        weights = {f"weight.{place}": parameter for place, parameter in enumerate(self.parameters)}
        self.aside.put({**weights, **{f"slot.{name}": slot for name, slot in slots.items()}})
        self.kept = number

    def go_back(self) -> None:
        """Put the state that was remembered back."""
        for place, good in self.aside.items("weight."):
            self.parameters[int(place)].data.copy_(good)
        self.optimizer.state.clear()  # first, so that old and new slots never lie in memory together
        optimizers.restore(self.optimizer, dict(self.aside.items("slot.")), self.numbers)

    def judge(self, loss: float, norm: float) -> str:
        """Say what is wrong with a step that is about to be applied, "" when nothing is."""
        usual = statistics.median(self.losses) if len(self.losses) >= 16 else math.inf
        event = ""
        if not math.isfinite(loss) or not math.isfinite(norm):
            event = f"loss {loss:.3g}, gradient norm {norm:.3g}: step not applied, back at the last good weights"
        elif loss > self.leap * usual + 1.0 and self.kept is not None:
            event = f"loss leapt to {loss:.3g} from {usual:.3g}: back to the weights of step {self.kept}"
            self.go_back()
        self.bad = self.bad + 1 if event else 0
        if self.bad >= PATIENCE_WITH_NAN:
            raise Diverged(f"training diverged ({event}), {self.bad} steps in a row; try a third of the learning rate")
        if not event:
            self.losses.append(loss)
        return event


def run(
    prepared: Prepared,
    objective: ModuleType,
    config: Any,
    batches: Callable[[int], Sequence[PackedBatch]],
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    guard: Guard,
    *,
    start: int = 0,
    penalties: Mapping[str, Penalty] | None = None,
    resting: Callable[[Any, int, int], Sequence[Tensor]] | None = None,
    on_step: Callable[[Any, int, int], None] | None = None,
) -> Iterator[Step]:
    """Take steps `start + 1 … plan.steps`, yielding after each; the caller may stop at any time.

    The gradient of a step is that of the sum over all its packs divided by their common count, so packing,
    accumulation and batch size give the same update; the gradients of `penalties` come on top, and their values are
    among the step's metrics. Raises Mistake when a step has nothing to learn from, or when
    training diverges.
    """
    for number in range(start + 1, plan.steps + 1):
        rate = plan.learning_rate * optimizers.factor(
            number - 1,
            plan.steps,
            warmup_ratio=plan.warmup_ratio,
            shape=plan.lr_scheduler_type,
            told=plan.lr_scheduler_kwargs,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        prepared.model.train()
        total, count, tokens, sums = 0.0, 0.0, 0, dict[str, float]()
        with _frozen(resting(prepared.model, number, plan.steps) if resting else ()):
            for batch in batches(number):
                loss, targets, told = _learn(prepared, objective, config, batch)
                total, count, tokens = total + loss, count + targets, tokens + len(batch.tokens)
                for name, value in told.items():
                    sums[name] = sums.get(name, 0.0) + value
            if count == 0:
                raise Mistake(
                    f"step {number} has no trained tokens; see the receipt, and raise max_length if rows are cut"
                )
            pulls = {name: penalty(prepared, number, count) for name, penalty in (penalties or {}).items()}
        norm = _average_and_clip(guard.parameters, count, plan.max_grad_norm)
        event = guard.judge(total / count, norm)
        if not event:
            optimizer.step()
            if on_step is not None:
                on_step(prepared.model, number, plan.steps)
        optimizer.zero_grad(set_to_none=True)
        if number % guard.keep_every == 0 and not event:
            guard.keep(number)
        prepared.model.eval()
        metrics = {name: value / count for name, value in sums.items()} | pulls
        yield Step(number, total / count, rate, norm, tokens, metrics, event)


def _learn(
    prepared: Prepared, objective: ModuleType, config: Any, batch: PackedBatch
) -> tuple[float, float, dict[str, float]]:
    """Add a pack's gradient to the weights'; returns its loss and count, summed, and its metrics.

    As numbers, so that nothing of the graph outlives it: its nodes lie between the activations, and while they live the
    next pack's activations, of another size, fit nowhere (peak memory was 1.7 times what is needed instead of 1.3).
    """
    batch = batch.to(prepared.device)
    loss, targets, metrics = objective.loss(forward(prepared, batch), batch, config)
    if loss.requires_grad:  # else no trained weight takes part, which is told later
        loss.backward()
    return float(loss.detach()), float(targets), {name: float(value) for name, value in metrics.items()}


@contextmanager
def _frozen(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Want no gradient of `parameters` for a while: what lies below the lowest weight that learns costs nothing."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _average_and_clip(parameters: list[Tensor], count: float, limit: float) -> float:
    """Divide summed gradients by their count and clip them to `limit`; returns the norm before clipping."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        raise Mistake("no gradient reached a trained weight; the method's targets take no part in the loss")
    norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))) / count
    torch._foreach_mul_(grads, min(1.0, limit / (norm + 1e-6)) / count)
    return norm
