"""What every file of `objectives/` promises: sums and counts that add up however a batch is divided."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.errors import Mistake
from tunesmith.core.rooms import choice, names

each_objective = pytest.mark.parametrize("name", names("objectives"))
TERMS = {"logprobs"}
TARGETS = 96
PIECES = [[96], [1, 95], [48, 48], [7, 0, 30, 59], [1] * 96]


@dataclass(frozen=True)
class Terms:
    logprobs: Tensor
    correct: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    weights: Tensor


def example(*, with_correct: bool = True) -> tuple[Terms, Batch]:
    """Values that are whole multiples of 1/64, so that float32 adds them without rounding in any order."""
    generator = torch.Generator().manual_seed(0)
    logprobs = -torch.randint(0, 64 * 20, (TARGETS,), generator=generator) / 64
    weights = torch.randint(0, 5, (TARGETS,), generator=generator) / 4
    correct = torch.rand(TARGETS, generator=generator) < 0.5
    return Terms(logprobs.requires_grad_(), correct if with_correct else None), Batch(weights)


@each_objective
def test_needs_are_terms_there_are(name: str) -> None:
    assert set(choice("objectives", name).NEEDS) - TERMS == set()


@each_objective
def test_an_unknown_key_is_an_error(name: str) -> None:
    with pytest.raises(Mistake, match="unknown key"):
        choose("objectives", name, betta=0.1)


@each_objective
@pytest.mark.parametrize("sizes", PIECES, ids=len)
def test_sums_and_counts_add_up_exactly_over_any_division(name: str, sizes: list[int]) -> None:
    objective, config = choice("objectives", name), choose("objectives", name).config
    terms, batch = example()
    whole, count, metrics = objective.loss(terms, batch, config)
    (gradient,) = torch.autograd.grad(whole, terms.logprobs)
    assert terms.correct is not None
    pieces = zip(*(tensor.split(sizes) for tensor in (terms.logprobs, terms.correct, batch.weights)), strict=True)
    parts = [objective.loss(Terms(logprobs, correct), Batch(weights), config) for logprobs, correct, weights in pieces]
    total = torch.stack([part[0] for part in parts]).sum()
    assert torch.equal(total, whole)
    assert torch.equal(torch.stack([part[1] for part in parts]).sum(), count)
    for key, value in metrics.items():
        assert torch.equal(torch.stack([part[2][key] for part in parts]).sum(), value)
    assert torch.equal(torch.autograd.grad(total, terms.logprobs)[0], gradient)


@each_objective
def test_terms_are_not_changed_and_metrics_carry_no_gradient(name: str) -> None:
    terms, batch = example()
    before = terms.logprobs.detach().clone(), batch.weights.clone()
    total, count, metrics = choice("objectives", name).loss(terms, batch, choose("objectives", name).config)
    assert total.requires_grad
    assert total.shape == count.shape == ()
    assert not any(metric.requires_grad for metric in metrics.values())
    assert torch.equal(terms.logprobs, before[0])
    assert torch.equal(batch.weights, before[1])
