"""Optimizers move weights as torch's own plain ones do; the learning rate has the shape its name says."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.optimization import Adafactor, get_scheduler

from tunesmith.core.config import LrSchedulerKwargs, OptimizerName, ScheduleName
from tunesmith.core.errors import Mistake
from tunesmith.engine import optimizers

RATE, DECAY = 0.1, 0.05
PLAIN: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=RATE, foreach=False, fused=False),
    "adam": lambda groups: torch.optim.Adam(groups, lr=RATE, foreach=False, fused=False),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=RATE, momentum=0.8, foreach=False, fused=False),
    "adafactor": lambda groups: Adafactor(groups, lr=RATE, relative_step=False, scale_parameter=False),
}
ALL = sorted(set(get_args(OptimizerName)) - {"adamw8bit"})


def _weights() -> tuple[Tensor, Tensor]:
    """A matrix and a vector, the same every time."""
    generator = torch.Generator().manual_seed(2)
    matrix, vector = torch.randn(5, 3, generator=generator), torch.randn(7, generator=generator)
    return matrix.requires_grad_(True), vector.requires_grad_(True)


def _move(optimizer: Any, weights: tuple[Tensor, ...], steps: int = 6) -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("name", PLAIN)
def test_weights_move_as_in_torch_without_its_shortcuts(name: str) -> None:
    matrix, vector = _weights()
    ours = optimizers.make(name, [matrix, vector], learning_rate=RATE, weight_decay=DECAY, momentum=0.8)
    other_matrix, other_vector = _weights()
    plain = PLAIN[name](
        [{"params": [other_matrix], "weight_decay": DECAY}, {"params": [other_vector], "weight_decay": 0.0}]
    )
    # Which of the two is drawn a gradient first does not matter as long as it is the same.
    _move(ours, (matrix, vector))
    _move(plain, (other_matrix, other_vector))
    torch.testing.assert_close(matrix, other_matrix, rtol=0, atol=1e-6)
    torch.testing.assert_close(vector, other_vector, rtol=0, atol=1e-6)


def test_adam_takes_the_first_step_by_hand() -> None:
    """After one step the debiased moments are g and g²: every weight moves by the rate against its gradient's sign."""
    weight = torch.tensor([[1.0, -2.0]], requires_grad=True)
    optimizer = optimizers.make("adamw", [weight], learning_rate=0.1, weight_decay=0.5)
    weight.grad = torch.tensor([[3.0, -0.01]])
    optimizer.step()
    # Decay first: w (1 - 0.1 · 0.5) = 0.95 w; then - 0.1 · sign(g).
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.95 - 0.1, -1.9 + 0.1]]), rtol=0, atol=1e-6)


def test_muon_moves_matrices_as_torch_does_and_the_rest_by_adamw() -> None:
    matrix, vector = _weights()
    embedding = torch.randn(6, 4, generator=torch.Generator().manual_seed(5)).requires_grad_(True)
    other_matrix, other_vector = _weights()
    other_embedding = embedding.detach().clone().requires_grad_(True)
    everything = [matrix, vector, embedding]
    ours = optimizers.make("muon", everything, learning_rate=RATE, weight_decay=DECAY, embeddings=[embedding])
    muon = torch.optim.Muon([other_matrix], lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    adamw = PLAIN["adamw"](
        [{"params": [other_vector], "weight_decay": 0.0}, {"params": [other_embedding], "weight_decay": DECAY}]
    )
    _move(ours, (matrix, vector, embedding))
    both = SimpleNamespace(step=lambda: (muon.step(), adamw.step()))
    _move(both, (other_matrix, other_vector, other_embedding))
    for weight, other in zip(everything, (other_matrix, other_vector, other_embedding), strict=True):
        torch.testing.assert_close(weight, other, rtol=0, atol=1e-6)


def test_lion_takes_its_first_steps_by_hand() -> None:
    """g₁ = (3, -1) leaves m = (0.03, -0.01); with g₂ = (-0.2, 2), c = 0.9 m + 0.1 g₂ = (0.007, 0.191)."""
    weight = torch.tensor([[1.0, -2.0]], requires_grad=True)
    optimizer = optimizers.make("lion", [weight], learning_rate=0.1, weight_decay=0.5)
    weight.grad = torch.tensor([[3.0, -1.0]])
    optimizer.step()
    # Decay first: w (1 - 0.1 · 0.5) = 0.95 w; then - 0.1 · sign(g).
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.95 - 0.1, -1.9 + 0.1]]), rtol=0, atol=1e-6)
    weight.grad = torch.tensor([[-0.2, 2.0]])
    optimizer.step()
    after = torch.tensor([[0.85 * 0.95 - 0.1, -1.8 * 0.95 - 0.1]])
    torch.testing.assert_close(weight.detach(), after, rtol=0, atol=1e-6)


def test_a_missing_library_is_told_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(Mistake, match=r"adamw8bit.*bitsandbytes.*pip install bitsandbytes"):
        optimizers.make("adamw8bit", list(_weights()), learning_rate=RATE)


@pytest.mark.parametrize("name", ALL)
def test_what_it_remembers_was_counted(name: str) -> None:
    """All but what is a number a row or column: adafactor's factors, and the steps taken."""
    embedding = torch.randn(40, 30).requires_grad_(True)
    weights = [torch.randn(50, 60).requires_grad_(True), torch.randn(70).requires_grad_(True), embedding]
    optimizer = optimizers.make(name, weights, learning_rate=RATE, embeddings=[embedding])
    _move(optimizer, tuple(weights))
    kept = sum(slot.numel() for slot in optimizers.slots(optimizer)[0].values() if slot.dtype == torch.float32)
    counted = optimizers.slot_numbers(name, weights, [embedding])
    assert counted <= kept <= counted + 50 + 60 + 40 + 30 + 2 * len(weights)


def test_nested_and_shared_slots_come_back() -> None:
    """As those of bitsandbytes, which may not be installed here: groups of tensors, code books used by all weights."""
    book, moments = torch.arange(4.0), torch.ones(3)
    state = {0: {"step": 3, "quantized": {"book": book, "moments": moments}}, 1: {"quantized": {"book": book}}}
    told: list[Any] = []
    optimizer: Any = SimpleNamespace(
        state_dict=lambda: {"state": state, "param_groups": []}, load_state_dict=lambda given: told.append(given)
    )
    tensors, plain = optimizers.slots(optimizer)
    assert plain == {"0.step": 3}
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == 3
    optimizers.restore(optimizer, tensors, plain)
    back = told[0]["state"]
    assert back[0]["step"] == 3
    assert torch.equal(back[0]["quantized"]["moments"], moments)
    assert torch.equal(back[1]["quantized"]["book"], book)


def test_eight_bits_go_on_bit_for_bit(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    weights = [torch.randn(128, 128).requires_grad_(True), torch.randn(70).requires_grad_(True)]
    optimizer = optimizers.make("adamw8bit", weights, learning_rate=RATE)
    _move(optimizer, tuple(weights))
    tensors, plain = optimizers.slots(optimizer)
    save_file(tensors, tmp_path / "slots")
    others = [weight.detach().clone().requires_grad_(True) for weight in weights]
    other = optimizers.make("adamw8bit", others, learning_rate=RATE)
    optimizers.restore(other, load_file(tmp_path / "slots"), plain)
    _move(optimizer, tuple(weights))
    _move(other, tuple(others))
    assert all(torch.equal(one, two) for one, two in zip(weights, others, strict=True))
    assert sum(tensor.nbytes for tensor in tensors.values()) < 1.2 * 4 * optimizers.slot_numbers("adamw8bit", weights)


def test_names_in_the_task_file_are_those_there_are() -> None:
    assert set(get_args(OptimizerName)) == {*optimizers.SLOTS} == {*optimizers._MAKERS, "muon"}
    assert set(get_args(ScheduleName)) == {*optimizers.SHAPES, "slanted_triangular"}


@pytest.mark.parametrize("name", PLAIN)
def test_vectors_are_not_decayed(name: str) -> None:
    matrix, vector = _weights()
    before = vector.detach().clone()
    optimizer = optimizers.make(name, [matrix, vector], learning_rate=RATE, weight_decay=DECAY)
    first = matrix.detach().norm()
    for _ in range(3):
        matrix.grad, vector.grad = torch.zeros_like(matrix), torch.zeros_like(vector)
        optimizer.step()
    assert matrix.detach().norm() < first
    assert torch.equal(vector.detach(), before)


def test_a_group_may_learn_at_its_own_pace() -> None:
    slow, fast = _weights()[0], _weights()[0]
    groups = [{"params": [slow]}, {"params": [fast], "scale": 4.0}]
    optimizer = optimizers.make("sgd", groups, learning_rate=RATE, momentum=0.0)
    before = slow.detach().clone()
    slow.grad = fast.grad = torch.ones_like(slow)
    optimizer.step()
    torch.testing.assert_close(before - slow.detach(), torch.full((5, 3), RATE), rtol=0, atol=1e-6)
    torch.testing.assert_close(before - fast.detach(), torch.full((5, 3), 4 * RATE), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # Ten steps, a fifth of them warming up: thirds, since the peak itself is the first step after.
        # Then eight steps, an eighth of the way down each.
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", [1 / 3, 2 / 3] + [(1 + math.cos(math.pi * eighth / 8)) / 2 for eighth in range(8)]),
    ],
)
def test_the_learning_rate_has_its_shape(shape: str, expected: list[float]) -> None:
    factors = [optimizers.factor(step, 10, warmup_ratio=0.2, shape=shape) for step in range(10)]
    assert factors == pytest.approx(expected)


def test_the_slanted_triangle_is_the_papers() -> None:
    """Worked by hand from eq. 3 with T = 20, cut = 2, ratio 32: (1 + 31 p) / 32 with p = 0, 1/2, then 1 to 1/18."""
    shares = [0, 1 / 2] + [(18 - left) / 18 for left in range(18)]
    factors = [optimizers.factor(step, 20, warmup_ratio=0.5, shape="slanted_triangular") for step in range(20)]
    assert factors == pytest.approx([(1 + 31 * share) / 32 for share in shares])


@pytest.mark.parametrize(
    ("shape", "ours", "theirs"),
    [
        ("constant_with_warmup", {}, {}),
        ("linear", {}, {}),
        ("cosine", {}, {}),
        ("cosine_with_restarts", {"num_cycles": 3}, {"num_cycles": 3}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.2}, {"min_lr_rate": 0.2}),
        ("polynomial", {"power": 2.0}, {"power": 2.0, "lr_end": 0.0}),
        ("polynomial", {"power": 2.0, "min_lr_rate": 0.25}, {"power": 2.0, "lr_end": 0.25}),
        ("inverse_sqrt", {}, {}),
        ("warmup_stable_decay", {"decay_ratio": 0.25}, {"num_decay_steps": 10}),
        ("warmup_stable_decay", {"decay_ratio": 0.5, "min_lr_rate": 0.1}, {"num_decay_steps": 20, "min_lr_ratio": 0.1}),
    ],
)
def test_after_the_warm_up_it_is_that_of_transformers(shape: str, ours: Any, theirs: Any) -> None:
    """The warm-up differs: ours takes its first step at more than nothing."""
    steps, warmup = 50, 10
    dummy = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_scheduler(shape, dummy, warmup, steps, scheduler_specific_kwargs=theirs)
    told = LrSchedulerKwargs(**ours)
    for step in range(warmup, steps):
        found = optimizers.factor(step, steps, warmup_ratio=warmup / steps, shape=shape, told=told)
        assert found == pytest.approx(schedule.lr_lambdas[0](step), abs=1e-9)


@pytest.mark.parametrize("shape", get_args(ScheduleName))
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.05, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_no_step_is_wasted(shape: str, warmup_ratio: float, steps: int) -> None:
    """Whatever the numbers, no step has rate 0 or one above the peak."""
    factors = [optimizers.factor(step, steps, warmup_ratio=warmup_ratio, shape=shape) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
