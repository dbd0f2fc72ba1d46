from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.errors import Mistake
from tunesmith.methods import _attachment, adalora

IDS = torch.tensor([[5, 81, 2, 300, 17]])


def attached(model: Any, **keys: Any) -> adalora.Config:
    torch.manual_seed(0)
    config = adalora.Config(**{"init_r": 4, "target_r": 2, "target_modules": ["q_proj", "v_proj"], **keys})
    adalora.attach(model, config)
    return config


def walk(model: Any, first: int, last: int, steps: int) -> None:
    """Steps of plain descent."""
    for step in range(first, last + 1):
        loss: Tensor = model(input_ids=IDS, labels=IDS).loss + adalora.penalty(model)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter -= 0.5 * parameter.grad
        adalora.on_step(model, step, steps)
        model.zero_grad()


def ranks(model: Any) -> list[int]:
    return [int(layer.lora_E.count_nonzero()) for layer in model.modules() if isinstance(layer, adalora.AdaloraLinear)]


def test_the_update_is_p_lambda_q() -> None:
    """P = (1, 0)ᵀ, Λ = 3, Q = (1, 2), alpha / init_r = 4: the first row of the update is (12, 24)."""
    made = adalora.AdaloraLinear(nn.Linear(2, 2), adalora.Config(init_r=1, alpha=4))
    x = torch.randn(3, 2)
    assert torch.equal(made(x), made.base(x))
    made.lora_A.data, made.lora_B.data = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [0.0]])
    made.lora_E.data = torch.tensor([[3.0]])
    update = torch.tensor([[12.0, 24.0], [0.0, 0.0]])
    # PEFT adds 1e-5 to the rank, a part in a hundred thousand here.
    torch.testing.assert_close(made(x), made.base(x) + x @ update.T, rtol=1e-4, atol=1e-4)


def test_the_penalty_is_zero_where_directions_are_orthonormal(toy_llama: Any) -> None:
    """‖QQᵀ − I‖ of Q = 2 I is ‖3 I‖ = 3 √4 = 6 at rank 4, and half the factors are that."""
    attached(toy_llama, orth_reg_weight=0.5)
    for layer in toy_llama.modules():
        if isinstance(layer, adalora.AdaloraLinear):
            nn.init.eye_(layer.lora_A)
            nn.init.eye_(layer.lora_B)
    assert adalora.penalty(toy_llama).item() == 0.0
    for layer in toy_llama.modules():
        if isinstance(layer, adalora.AdaloraLinear):
            layer.lora_A.data *= 2
    assert adalora.penalty(toy_llama).item() == pytest.approx(0.5 * 6 / 2)


def test_the_budget_falls_along_a_cubic_curve() -> None:
    """From 16 to 8 between steps 2 and 10: at step 6, half way, 8 + 8 / 8 = 9."""
    budgets = [adalora.rank_budget(step, 16, 8, 2, 10) for step in range(1, 13)]
    assert budgets == [16, 16, 13, 11, 9, 9, 8, 8, 8, 8, 8, 8]


def test_importance_is_smoothed_sensitivity_times_smoothed_uncertainty(toy_llama: Any) -> None:
    """One step with |w g| = 2: I = 0.15 · 2 = 0.3, U = 0.15 · |2 − 0.3| = 0.255 (eqs. 9 and 10, beta 0.85)."""
    attached(toy_llama, tinit=5)
    for layer in toy_llama.modules():
        if isinstance(layer, adalora.AdaloraLinear):
            for weight in layer.learned().values():
                weight.data.fill_(1.0)
                weight.grad = torch.full_like(weight, -2.0)
    adalora.on_step(toy_llama, 1, 10)
    memory = _attachment.expect(toy_llama, "adalora").memory
    path = "model.layers.0.self_attn.q_proj"
    torch.testing.assert_close(memory[f"{path}.lora_A.sensitivity"], torch.full((4, 32), 0.3))
    torch.testing.assert_close(memory[f"{path}.lora_A.uncertainty"], torch.full((4, 32), 0.255))
    torch.testing.assert_close(adalora._importance(memory, path), torch.full((4,), 3 * 0.3 * 0.255))


def test_ranks_are_given_up_and_stay_so(toy_llama: Any) -> None:
    attached(toy_llama, tinit=2, tfinal=3)
    walk(toy_llama, 1, 2, 10)
    assert ranks(toy_llama) == [4, 4, 4, 4]
    walk(toy_llama, 3, 7, 10)
    kept = ranks(toy_llama)
    assert sum(kept) == 2 * 4
    walk(toy_llama, 8, 10, 10)
    assert ranks(toy_llama) == kept


def test_by_itself_the_schedule_is_a_share_of_the_run() -> None:
    assert adalora._phases(adalora.Config(), 100) == (10, 70)
    assert adalora._phases(adalora.Config(), 1) == (0, 1)
    assert adalora._phases(adalora.Config(tinit=50, tfinal=90), 100) == (9, 10)


def test_a_target_above_the_start_gives_nothing_up(toy_llama: Any) -> None:
    attached(toy_llama, target_r=9)
    walk(toy_llama, 1, 4, 4)
    assert ranks(toy_llama) == [4, 4, 4, 4]


def test_what_is_written_has_only_the_ranks_that_stayed(toy_llama: Any) -> None:
    config = attached(toy_llama)
    assert adalora.written(toy_llama, config)[0] == config
    walk(toy_llama, 1, 6, 6)
    written, weights = adalora.written(toy_llama, config)
    assert list(written.rank_pattern.values()) == ranks(toy_llama)
    assert sum(tensor.shape[0] for name, tensor in weights.items() if name.endswith("lora_E")) == sum(ranks(toy_llama))


def test_a_rank_for_no_layer_is_a_mistake(toy_llama: Any) -> None:
    with pytest.raises(Mistake, match="rank_pattern: 'q_prj' matches no target"):
        attached(toy_llama, rank_pattern={"q_prj": 2})
