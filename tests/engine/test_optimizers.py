"""Optimizers move weights as torch's own plain ones do; the learning rate has the shape its name says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tunesmith.engine import optimizers

RATE, DECAY = 0.1, 0.05
PLAIN: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=RATE, foreach=False, fused=False),
    "adam": lambda groups: torch.optim.Adam(groups, lr=RATE, foreach=False, fused=False),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=RATE, momentum=0.8, foreach=False, fused=False),
}


def _weights() -> tuple[Tensor, Tensor]:
    """A matrix and a vector, the same every time."""
    generator = torch.Generator().manual_seed(2)
    matrix, vector = torch.randn(5, 3, generator=generator), torch.randn(7, generator=generator)
    return matrix.requires_grad_(True), vector.requires_grad_(True)


def _move(optimizer: torch.optim.Optimizer, weights: tuple[Tensor, ...], steps: int = 6) -> None:
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


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine", "slanted_triangular"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.05, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_no_step_is_wasted(shape: str, warmup_ratio: float, steps: int) -> None:
    """Whatever the numbers, no step has rate 0 or one above the peak."""
    factors = [optimizers.factor(step, steps, warmup_ratio=warmup_ratio, shape=shape) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
