"""What holds a training to its start: each gradient against one worked out in sight, and runs that resume with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.core.config import choose
from tunesmith.core.records import Encoded
from tunesmith.engine.checkpoints import trained
from tunesmith.engine.fit import Job, fit
from tunesmith.engine.journal import Reading
from tunesmith.engine.penalties import Leash, Pull, fisher
from tunesmith.engine.prepare import prepare

GENERAL = [
    Encoded((5, 81, 2, 300, 17), (0.0, 0.0, 0.0, 1.0, 1.0)),
    Encoded((44, 9, 120), (0.0, 1.0, 1.0)),
    Encoded((7, 7, 30, 31), (0.0, 0.0, 0.0, 1.0)),
]
RUN: dict[str, Any] = {
    "method": {"name": "lora", "r": 4, "dropout": 0.2},
    "learning_rate": 0.05,
    "num_train_epochs": 2,
    "eval_steps": 2,
    "save_steps": 3,
}


def moved(job: Job, size: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in job.trained:
            parameter += size * torch.randn(parameter.shape, generator=generator)


def zeroed(job: Job) -> list[Tensor]:
    """Gradients of zero, as a step's loss would have left its own; returned live."""
    for parameter in job.trained:
        parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in job.trained if parameter.grad is not None]


def plain_shares(model: Any, row: Encoded) -> Tensor:
    scores: Tensor = model(input_ids=torch.tensor([row.ids])).logits[0].float().log_softmax(-1)
    return scores[[place - 1 for place, weight in enumerate(row.weights) if weight]]


@pytest.fixture
def leashed(make_job: Callable[..., Job], toy_model: Callable[..., Any]) -> Callable[..., Job]:
    """A job held by KL and, where asked for, by its start; the base's distributions are those of a model of its own."""

    def make(folder: Path | None = None, *, weight: float = 0.5, **keys: Any) -> Job:
        leash = Leash(prepare(toy_model("llama"), "float32"), GENERAL, weight, rows_a_step=2)
        job = make_job(folder, **{**RUN, **keys})
        job.penalties = {"kl": leash, "l2": Pull(job.prepared, 0.1)}
        return job

    return make


def test_the_leash_is_the_gradient_of_the_mean_kl(leashed: Callable[..., Job], toy_model: Callable[..., Any]) -> None:
    job, base = leashed(), toy_model("llama")
    moved(job)
    gradients = zeroed(job)
    value = job.penalties["kl"](job.prepared, 1, 3.0)  # step 1 takes the first two rows
    pieces = []
    for row in GENERAL[:2]:
        p, q = plain_shares(base, row).detach(), _attached_shares(job, row)
        pieces.append((p.exp() * (p - q)).sum(-1))
    kl = torch.cat(pieces).mean()
    expected = torch.autograd.grad(0.5 * 3.0 * kl, job.trained)
    # The base's log-probabilities are kept in half precision: three digits.
    assert value == pytest.approx(float(kl.detach()), rel=5e-3)
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=5e-3, atol=2e-3 * float(wanted.abs().max()))


def _attached_shares(job: Job, row: Encoded) -> Tensor:
    from tunesmith.engine.forward import logits
    from tunesmith.engine.packing import pack

    batch = pack([row])
    return logits(job.prepared, batch, batch.index).log_softmax(-1)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_every_kind_of_model_that_writes_is_held(kind: str, toy_model: Callable[..., Any]) -> None:
    prepared = prepare(toy_model(kind), "float32")
    leash = Leash(prepared, GENERAL, 1.0, rows_a_step=3)
    choose("methods", "full").module.attach(prepared.model, choose("methods", "full").config)
    assert leash(prepared, 1, 1.0) == pytest.approx(0.0, abs=1e-6)
    importance = fisher(prepared, GENERAL)
    assert torch.cat([one.flatten() for one in importance]).mean() == pytest.approx(1.0, rel=1e-3)
    with torch.no_grad():
        for _, parameter in trained(prepared.model):
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    before = leash(prepared, 1, 1.0)
    with torch.no_grad():
        for _, parameter in trained(prepared.model):
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
    assert leash(prepared, 1, 1.0) < before


def test_steps_take_the_rows_in_turn(leashed: Callable[..., Job]) -> None:
    job = leashed()
    moved(job)
    values = [job.penalties["kl"](job.prepared, step, 1.0) for step in range(1, 7)]
    assert values[:3] == values[3:]  # three pairs of three rows: (0, 1), (2, 0), (1, 2), and around again
    assert len(set(values[:3])) == 3


def test_a_fresh_adapter_is_not_pulled(leashed: Callable[..., Job]) -> None:
    job = leashed()
    gradients = zeroed(job)
    assert job.penalties["l2"](job.prepared, 1, 1.0) == 0.0
    assert job.penalties["kl"](job.prepared, 1, 1.0) == pytest.approx(0.0, abs=1e-6)
    assert all(gradient.abs().max() < 1e-4 for gradient in gradients)  # what half precision rounded off


def test_the_pull_is_toward_the_start_and_weighted_by_importance(make_job: Callable[..., Job]) -> None:
    job = make_job(method={"name": "bitfit"})
    start = [parameter.detach().clone() for parameter in job.trained]
    importance = [torch.full_like(parameter, place + 0.5) for place, parameter in enumerate(start)]
    plain, weighted = Pull(job.prepared, 0.2), Pull(job.prepared, 0.2, importance)
    moved(job)
    away = [now.detach() - before for now, before in zip(job.trained, start, strict=True)]
    gradients = zeroed(job)
    assert plain(job.prepared, 1, 4.0) == pytest.approx(sum(float(a.square().sum()) for a in away) / 2, rel=1e-5)
    for gradient, a in zip(gradients, away, strict=True):
        torch.testing.assert_close(gradient, 0.2 * 4.0 * a)
    gradients = zeroed(job)
    expected = sum((place + 0.5) * float(a.square().sum()) for place, a in enumerate(away)) / 2
    assert weighted(job.prepared, 1, 1.0) == pytest.approx(expected, rel=1e-5)
    for place, (gradient, a) in enumerate(zip(gradients, away, strict=True)):
        torch.testing.assert_close(gradient, 0.2 * (place + 0.5) * a)


def test_a_weight_that_the_step_did_not_reach_stays(make_job: Callable[..., Job]) -> None:
    job = make_job()
    pull = Pull(job.prepared, 1.0)
    moved(job)
    assert pull(job.prepared, 1, 1.0) == 0.0
    assert all(parameter.grad is None for parameter in job.trained)


def test_weights_that_rest_at_a_step_are_passed_over(make_job: Callable[..., Job]) -> None:
    job = make_job(method={"name": "bitfit"})
    pull, first = Pull(job.prepared, 1.0), job.trained[0]
    moved(job)
    gradients = zeroed(job)
    first.requires_grad_(False)
    first.grad = None
    pull(job.prepared, 1, 1.0)
    for gradient, now, start in zip(gradients[1:], job.trained, pull.start[1:], strict=True):
        torch.testing.assert_close(gradient, now.detach() - start)


def test_importance_is_the_mean_squared_gradient_of_a_row(
    make_job: Callable[..., Job], toy_model: Callable[..., Any]
) -> None:
    job, twin = make_job(method={"name": "bitfit"}), toy_model("llama")
    names = [name for name, _ in trained(job.prepared.model)]
    weights = [dict(twin.named_parameters())[name] for name in names]
    squares = [torch.zeros_like(weight) for weight in weights]
    for row in GENERAL:
        shares = plain_shares(twin, row)
        labels = torch.tensor([token for token, weight in zip(row.ids, row.weights, strict=True) if weight])
        likelihood = shares.gather(-1, labels.unsqueeze(1)).sum()
        for square, gradient in zip(squares, torch.autograd.grad(likelihood, weights), strict=True):
            square += gradient.square()
    mean = torch.cat(squares).mean()
    for found, square in zip(fisher(job.prepared, GENERAL), squares, strict=True):
        torch.testing.assert_close(found, square / mean, rtol=1e-3, atol=1e-4)
    assert all(parameter.grad is None for parameter in job.trained)


def test_penalties_are_in_the_metrics_and_keep_the_weights_near(
    leashed: Callable[..., Job], make_job: Callable[..., Job]
) -> None:
    def distance(job: Job) -> float:
        fit(job)
        return float(sum(parameter.detach().square().sum() for name, parameter in _b_of(job)))

    seen: list[dict[str, float]] = []
    held = leashed(weight=20.0)
    fit(held, lambda step: seen.append(step.metrics))
    assert all({"kl", "l2"} <= metrics.keys() for metrics in seen)
    assert seen[-1]["kl"] > 0
    assert distance(leashed(weight=20.0)) < 0.7 * distance(make_job(**RUN))


def _b_of(job: Job) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in trained(job.prepared.model) if "lora_B" in name]


class Killed(BaseException):
    """Stands in for `kill -9`."""


def test_a_run_with_penalties_and_a_gate_resumes_bit_for_bit(leashed: Callable[..., Job], tmp_path: Path) -> None:
    def gated(name: str) -> Job:
        job = leashed(tmp_path / name)
        job.gate = lambda: Reading({"forgetting_kl": float(sum(p.detach().abs().sum() for p in job.trained))})
        return job

    whole = gated("whole")
    done = fit(whole)
    for at in (1, 4, 5):
        name = f"killed-{at}"

        def kill(step: Any, at: int = at) -> None:
            if step.number == at:
                raise Killed

        with pytest.raises(Killed):
            fit(gated(name), kill)
        again = gated(name)
        assert fit(again).curve == done.curve
        assert all(torch.equal(a, b) for a, b in zip(again.trained, whole.trained, strict=True))
        metrics = [(tmp_path / folder / "metrics.jsonl").read_bytes() for folder in (name, "whole")]
        assert metrics[0] == metrics[1]


# --- the gate


def gated(job: Job, outside_at: int) -> Job:
    """Outside from the validation of this number on (from 1)."""
    asked: list[int] = []

    def ask() -> Reading:
        asked.append(len(asked) + 1)
        return Reading({"forgetting_kl": float(asked[-1])}, "too far" if asked[-1] >= outside_at else "")

    job.gate = ask
    return job


def test_a_run_outside_the_gate_ends_with_the_best_weights_inside(make_job: Callable[..., Job], tmp_path: Path) -> None:
    kept: dict[int, list[Tensor]] = {}
    job = gated(make_job(tmp_path / "run", **RUN), 3)
    done = fit(job, lambda step: kept.update({step.number: [p.detach().clone() for p in job.trained]}))
    assert done.steps == 6  # validated at 2, 4 and 6
    assert [point["forgetting_kl"] for point in done.curve] == [1.0, 2.0, 3.0]
    best = min(done.curve[:2], key=lambda point: point["validation"])["step"]
    assert done.best_step == best
    assert done.stopped == f"step 6: too far: back to the weights of step {best}"
    assert all(torch.equal(a, b) for a, b in zip(job.trained, kept[int(best)], strict=True))
    again = gated(make_job(tmp_path / "run", **RUN), 1)
    resumed = fit(again)  # the checkpoint of step 6 says that the run has ended
    assert (resumed.steps, resumed.stopped) == (6, done.stopped)
    assert all(torch.equal(a, b) for a, b in zip(again.trained, job.trained, strict=True))


def test_where_nothing_was_inside_the_start_comes_back(make_job: Callable[..., Job]) -> None:
    job = gated(make_job(**RUN), 1)
    start = [parameter.detach().clone() for parameter in job.trained]
    assert fit(job).stopped.startswith("step 2: too far: back to the weights of step 0, the start: validate more often")
    assert all(torch.equal(a, b) for a, b in zip(job.trained, start, strict=True))


@pytest.mark.parametrize(("room", "share"), [(0.7, 0.5), (0.3, 0.25), (0.01, None)])
def test_from_outside_it_comes_half_the_way_back_until_inside(
    room: float, share: float | None, make_job: Callable[..., Job]
) -> None:
    keys = {**RUN, "method": {"name": "lora", "r": 4}, "max_steps": 2}
    free, job = make_job(**keys), make_job(**keys)
    start = [parameter.detach().clone() for parameter in job.trained]

    def away(one: Job) -> float:
        squares = [(now.detach() - then).square().sum() for now, then in zip(one.trained, start, strict=True)]
        return float(sum(squares)) ** 0.5

    fit(free)
    most = room * away(free)
    job.gate = lambda: Reading({"forgetting_kl": away(job)}, "too far" if away(job) > most else "")
    done = fit(job)
    assert away(job) == pytest.approx((share or 0.0) * away(free), rel=1e-4)
    assert ("of the way on" in done.stopped) == (share is not None)
    assert done.best_loss < math.inf if share else done.best_loss == math.inf


def test_without_validation_rows_the_latest_weights_inside_are_kept(make_job: Callable[..., Job]) -> None:
    kept: dict[int, list[Tensor]] = {}
    job = gated(make_job(validation=[], **RUN), 3)
    done = fit(job, lambda step: kept.update({step.number: [p.detach().clone() for p in job.trained]}))
    assert (done.steps, done.best_step) == (6, 4)
    assert all(torch.equal(a, b) for a, b in zip(job.trained, kept[4], strict=True))
