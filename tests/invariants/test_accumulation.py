"""However the rows of a step are divided, over micro-batches or packs, the update is the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.records import Encoded
from tunesmith.engine import checkpoints, optimizers
from tunesmith.engine.loop import Guard, Plan, Step, run
from tunesmith.engine.packing import PackedBatch, pack, packs
from tunesmith.engine.prepare import prepare

STEPS = 4


def _rows() -> list[Encoded]:
    """Eight rows with one to thirty answer tokens: a mean of means would weigh them otherwise."""
    generator = random.Random(3)
    instruction = tuple(generator.randrange(3, 320) for _ in range(20))
    rows = []
    for length in (1, 30, 2, 14, 1, 9, 3, 22):
        prompt = instruction + tuple(generator.randrange(3, 320) for _ in range(generator.randrange(1, 9)))
        answer = tuple(generator.randrange(3, 320) for _ in range(length))
        weights = tuple(generator.choice((0.3, 1.0)) for _ in answer)
        rows.append(Encoded(prompt + answer, (0.0,) * len(prompt) + weights))
    return rows


ROWS = _rows()
DIVISIONS: dict[str, Callable[[int], Sequence[PackedBatch]]] = {
    "one pack": lambda step: [pack(ROWS)],
    "one pack, nothing shared": lambda step: [pack(ROWS, share=False)],
    "eight of one row": lambda step: [pack([row]) for row in ROWS],
    "two of four rows": lambda step: [pack(ROWS[:4]), pack(ROWS[4:])],
    "packs of 60 tokens": lambda step: [batch for _, batch in packs(ROWS, max_tokens=60)],
    "another order": lambda step: [pack(ROWS[::-2]), pack(ROWS[::2])],
}


def _train(model: Any, method: str, optimizer: str, batches: Callable[[int], Any]) -> tuple[list[Step], list[Tensor]]:
    """The steps, and the weights that trained, in order."""
    prepared = prepare(model, "float32")
    chosen = choose("methods", method)
    torch.manual_seed(0)
    chosen.module.attach(model, chosen.config)
    trained = [parameter for _, parameter in checkpoints.trained(model)]
    rate = {"adamw": 1e-3, "sgd": 0.02}[optimizer]
    made = optimizers.make(optimizer, trained, learning_rate=rate, weight_decay=0.1)
    objective = choose("objectives", "sft")
    guard, plan = Guard(trained, made), Plan(STEPS, rate)
    steps = list(run(prepared, objective.module, objective.config, batches, made, plan, guard))
    return steps, [parameter.detach() for parameter in trained]


@pytest.mark.parametrize("division", [name for name in DIVISIONS if name != "one pack"])
@pytest.mark.parametrize(("method", "optimizer"), [("lora", "adamw"), ("full", "sgd")])
def test_a_step_is_the_same_however_its_rows_are_divided(
    method: str, optimizer: str, division: str, toy_model: Callable[..., Any]
) -> None:
    steps, weights = _train(toy_model(), method, optimizer, DIVISIONS["one pack"])
    other_steps, other_weights = _train(toy_model(), method, optimizer, DIVISIONS[division])
    assert [step.loss for step in other_steps] == pytest.approx([step.loss for step in steps], abs=1e-5)
    assert [step.grad_norm for step in other_steps] == pytest.approx([step.grad_norm for step in steps], rel=1e-5)
    for other, weight in zip(other_weights, weights, strict=True):
        torch.testing.assert_close(other, weight, rtol=0, atol=1e-6)


def test_a_mean_of_means_would_be_seen(toy_model: Callable[..., Any]) -> None:
    """The rows are such that dividing each micro-batch by its own count gives a visibly different update."""
    _, weights = _train(toy_model(), "full", "sgd", DIVISIONS["eight of one row"])
    even = [Encoded(row.ids, tuple(w / sum(row.weights) for w in row.weights)) for row in ROWS]
    _, other = _train(toy_model(), "full", "sgd", lambda step: [pack(even)])
    assert max(float((a - b).abs().max()) for a, b in zip(weights, other, strict=True)) > 1e-3
