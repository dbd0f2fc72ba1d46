"""The loop: what it refuses, what it mends by itself and says so, and what a clipped gradient looks like."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Encoded
from tunesmith.engine import checkpoints, optimizers
from tunesmith.engine.loop import PATIENCE_WITH_NAN, Guard, Plan, Step, run
from tunesmith.engine.packing import PackedBatch, pack
from tunesmith.engine.prepare import Prepared, prepare
from tunesmith.objectives import sft


def _rows(count: int, seed: int = 0, weight: float = 1.0) -> list[Encoded]:
    generator = random.Random(seed)
    ids = [tuple(generator.randrange(3, 320) for _ in range(12)) for _ in range(count)]
    return [Encoded(row, (*[0.0] * 6, *[weight] * 6)) for row in ids]


def _batches(step: int) -> list[PackedBatch]:
    return [pack(_rows(4, seed=step))]


class Bench:
    """A toy model with LoRA on it, an optimizer and a guard, ready to run."""

    def __init__(self, model: Any, optimizer: str = "adamw", rate: float = 1e-3, **guard: Any) -> None:
        self.prepared: Prepared = prepare(model, "float32")
        method = choose("methods", "lora", r=4)
        torch.manual_seed(0)
        method.module.attach(model, method.config)
        self.trained: list[Tensor] = [parameter for _, parameter in checkpoints.trained(model)]
        self.rate = rate
        self.optimizer = optimizers.make(optimizer, self.trained, learning_rate=rate, momentum=0.0)
        self.guard = Guard(self.trained, self.optimizer, **guard)
        self.guard.keep(0)
        self.applied: list[int] = []

    def run(
        self,
        steps: int,
        *,
        loss: Callable[..., Any] = sft.loss,
        batches: Callable[[int], Sequence[PackedBatch]] = _batches,
        **plan: Any,
    ) -> Iterator[Step]:
        self.steps = steps
        objective: Any = SimpleNamespace(loss=loss)
        told = Plan(steps, self.rate, **{"lr_scheduler_type": "constant", "warmup_ratio": 0.0, **plan})
        return run(
            self.prepared,
            objective,
            sft.Config(),
            batches,
            self.optimizer,
            told,
            self.guard,
            on_step=self.note,
        )

    def note(self, model: Any, step: int, steps: int) -> None:
        assert model is self.prepared.model
        assert step <= steps == self.steps
        self.applied.append(step)

    def state(self) -> tuple[list[Tensor], dict[str, Any]]:
        """Weights and optimizer, to compare with later."""
        return [weight.detach().clone() for weight in self.trained], copy.deepcopy(self.optimizer.state_dict())

    def is_at(self, state: tuple[list[Tensor], dict[str, Any]]) -> bool:
        """Whether weights and optimizer are those of `state`, bit for bit."""
        weights, optimizer = self.state()
        same = all(torch.equal(a, b) for a, b in zip(weights, state[0], strict=True))
        slots, kept = optimizer["state"], state[1]["state"]
        return same and all(torch.equal(slots[key][name], kept[key][name]) for key in kept for name in kept[key])


def _loss_with(changes: dict[int, Callable[[Tensor], Tensor]]) -> Callable[..., Any]:
    """`sft.loss` whose sum is changed at the calls named, counted from 1."""
    calls = iter(range(1, 10_000))

    def loss(terms: Any, batch: Any, config: Any) -> Any:
        total, count, metrics = sft.loss(terms, batch, config)
        return changes.get(next(calls), lambda same: same)(total), count, metrics

    return loss


def test_steps_say_what_they_did(toy_llama: Any) -> None:
    bench = Bench(toy_llama)
    steps = list(bench.run(3))
    assert [step.number for step in steps] == bench.applied == [1, 2, 3]
    assert {step.event for step in steps} == {""}
    assert {step.tokens for step in steps} == {4 * 11}
    assert all(0 <= step.metrics["token_accuracy"] <= 1 for step in steps)
    assert not bench.prepared.model.training
    assert all(weight.grad is None for weight in bench.trained)


def test_learning_lowers_the_loss(toy_llama: Any) -> None:
    bench = Bench(toy_llama, rate=1e-2)
    losses = [step.loss for step in bench.run(30, batches=lambda step: _batches(0))]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_a_loss_that_is_no_number_changes_nothing_and_is_told(what: float, toy_llama: Any) -> None:
    bench = Bench(toy_llama)
    steps = bench.run(4, loss=_loss_with({3: lambda total: total * what}))
    next(steps), next(steps)
    before = bench.state()
    third = next(steps)
    assert bench.is_at(before)
    assert "step not applied" in third.event
    assert not math.isfinite(third.loss)
    assert next(steps).event == ""
    assert bench.applied == [1, 2, 4]


def test_a_gradient_that_is_no_number_changes_nothing_and_is_told(toy_llama: Any) -> None:
    bench = Bench(toy_llama)
    steps = bench.run(4)
    next(steps), next(steps)
    before = bench.state()
    spoil = bench.trained[0].register_hook(lambda grad: grad * math.nan)
    third = next(steps)
    spoil.remove()
    assert math.isfinite(third.loss)
    assert "step not applied" in third.event
    assert bench.is_at(before)
    assert next(steps).event == ""


def test_a_leap_goes_back_to_the_state_kept_last(toy_llama: Any) -> None:
    bench = Bench(toy_llama, keep_every=8)
    steps = bench.run(22, loss=_loss_with({20: lambda total: total * 100}))
    states = [bench.state() for _ in steps if bench.applied]
    # Kept at 8 and 16; step 20 leapt, so it ends where 16 did, and 21 goes on from there.
    leapt = states[19]
    assert all(torch.equal(a, b) for a, b in zip(leapt[0], states[15][0], strict=True))
    for key, slots in states[15][1]["state"].items():
        assert all(torch.equal(leapt[1]["state"][key][name], value) for name, value in slots.items())
    assert not bench.is_at(leapt)
    assert bench.applied == [number for number in range(1, 23) if number != 20]


def test_a_leap_is_told_with_its_numbers(toy_llama: Any) -> None:
    bench = Bench(toy_llama, keep_every=8)
    *_, last = bench.run(20, loss=_loss_with({20: lambda total: total * 100}))
    assert last.event.startswith("loss leapt to ")
    assert last.event.endswith("back to the weights of step 16")


def test_a_high_start_is_no_leap(toy_llama: Any) -> None:
    """Before sixteen losses are known there is no usual one to compare with."""
    bench = Bench(toy_llama)
    steps = list(bench.run(17, loss=_loss_with({15: lambda total: total * 100})))
    assert {step.event for step in steps} == {""}


def test_divergence_is_a_mistake_that_says_what_to_do(toy_llama: Any) -> None:
    bench = Bench(toy_llama)
    bad = {number: lambda total: total * math.nan for number in range(3, 100)}
    steps = bench.run(50, loss=_loss_with(bad))
    for _ in range(1 + PATIENCE_WITH_NAN):
        next(steps)
    with pytest.raises(Mistake, match=r"diverged .* a third of the learning rate"):
        next(steps)


def test_bad_steps_now_and_then_are_no_divergence(toy_llama: Any) -> None:
    bench = Bench(toy_llama)
    bad = {number: lambda total: total * math.nan for number in range(1, 30) if number % PATIENCE_WITH_NAN}
    steps = list(bench.run(29, loss=_loss_with(bad)))
    assert sum(bool(step.event) for step in steps) == len(bad)
    assert list(bench.guard.losses) == [step.loss for step in steps if not step.event]  # none of them becomes usual


def test_a_step_without_trained_tokens_is_refused(toy_llama: Any) -> None:
    bench = Bench(toy_llama)
    before = bench.state()
    with pytest.raises(Mistake, match="step 2 has no trained tokens"):
        list(bench.run(3, batches=lambda step: [pack(_rows(2, weight=float(step != 2)))]))
    assert bench.applied == [1]
    assert not bench.is_at(before)


def test_a_pack_without_trained_tokens_beside_others_does_no_harm(toy_llama: Any) -> None:
    silent = pack(_rows(2, seed=9, weight=0.0))
    weights = []
    for more in ([], [silent]):
        bench = Bench(copy.deepcopy(toy_llama))
        (step,) = bench.run(1, batches=lambda step, more=more: [*more, pack(_rows(4))])
        weights.append((step.loss, *(weight.sum().item() for weight in bench.trained)))
    assert weights[0] == weights[1]


def test_a_method_that_takes_no_part_in_the_loss_is_refused(toy_llama: Any) -> None:
    prepared = prepare(toy_llama, "float32")
    toy_llama.requires_grad_(False)
    toy_llama.unused = nn.Parameter(torch.zeros(3, 3))
    optimizer = optimizers.make("adamw", [toy_llama.unused], learning_rate=1e-3)
    steps = run(prepared, sft, sft.Config(), _batches, optimizer, Plan(3, 1e-3), Guard([toy_llama.unused], optimizer))
    with pytest.raises(Mistake, match="no gradient reached a trained weight"):
        next(steps)


def test_a_clipped_gradient_keeps_its_direction(toy_llama: Any) -> None:
    """With plain SGD at rate 1 the update is the gradient: of length 0.5 where it was longer, as it was where not."""
    updates, told = [], []
    for limit in (1e9, 0.5):
        bench = Bench(copy.deepcopy(toy_llama), "sgd", rate=1.0)
        (before, _), (step,) = bench.state(), bench.run(1, max_grad_norm=limit)
        after, _ = bench.state()
        updates.append(torch.cat([(b - a).flatten() for a, b in zip(after, before, strict=True)]))
        told.append(step.grad_norm)
    free, clipped = updates
    assert told == pytest.approx([float(free.norm())] * 2, rel=1e-4)
    assert float(free.norm()) > 0.5
    torch.testing.assert_close(clipped, free * 0.5 / free.norm(), rtol=0, atol=1e-5)


def test_every_group_follows_the_plan_at_its_own_scale(toy_llama: Any) -> None:
    bench = Bench(toy_llama, rate=0.08)
    half = len(bench.trained) // 2
    groups = [{"params": bench.trained[:half]}, {"params": bench.trained[half:], "scale": 0.5}]
    bench.optimizer = optimizers.make("sgd", groups, learning_rate=0.08)
    bench.guard = Guard(bench.trained, bench.optimizer)
    seen = []
    for step in bench.run(4, lr_scheduler_type="linear", warmup_ratio=0.5):
        rates = {group["scale"]: group["lr"] for group in bench.optimizer.param_groups}
        assert rates == {1.0: step.learning_rate, 0.5: step.learning_rate / 2}
        seen.append(step.learning_rate)
    # Two steps of warm-up in thirds, then from the peak half-way down.
    assert seen == pytest.approx([0.08 / 3, 0.16 / 3, 0.08, 0.04])
