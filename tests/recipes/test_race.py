"""A race over learning rates: which go on, how many can be afforded, and what is kept for an interrupted rung."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tunesmith
from tunesmith.methods import full
from tunesmith.recipes import _race
from tunesmith.recipes._race import race

ToyTask = Callable[..., dict[str, Any]]
OWN = 2e-4  # lora's own rate


class Track:
    """Stands in for training: a step takes `per_step` seconds, a racer's validation `look`, the run's own twice that.

    A rate's loss is what `losses` says.
    """

    def __init__(self, per_step: float, losses: Callable[[float], float], look: float) -> None:
        self.seconds_per_step, self.losses = per_step, losses
        self.seconds_per_validation, self.seconds_of_a_look = look, 2 * look
        self.seconds = 0.0
        self.runs: list[tuple[float, int]] = []
        self.told: list[dict[str, Any]] = []

    def __call__(self, bench: Any, project: Any, told: list[dict[str, Any]]) -> Track:
        self.told = told
        return self

    def steps_in(self, epochs: float) -> int:
        return int(100 * epochs)

    def run(self, rate: float, *, steps: int) -> float:
        self.runs.append((rate, steps))
        self.seconds += steps * self.seconds_per_step + self.seconds_per_validation
        loss = self.losses(rate)
        self.told.append({"learning_rate": rate, "steps": steps, "value": loss if math.isfinite(loss) else None})
        return loss


@pytest.fixture
def run(toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Track]]:
    def make(
        seconds: float,
        *,
        per_step: float = 1.0,
        look: float = 0.0,
        losses: Callable[[float], float] = lambda rate: -rate,
        kind: str = "decoder",
        **keys: Any,
    ) -> tuple[Any, Track]:
        track = Track(per_step, losses, look)
        monkeypatch.setattr(_race, "_Runner", track)
        project = tunesmith.load(toy_task(**{"learning_rate": None, "num_train_epochs": 1.0, **keys}))
        bench: Any = SimpleNamespace(model=SimpleNamespace(prepared=SimpleNamespace(kind=kind)))
        return race(bench, project, Path("rung"), seconds, []), track

    return make


def test_the_better_half_goes_on_for_twice_as_long(run: Callable[..., Any]) -> None:
    plan, track = run(10_000, losses=lambda rate: 1 / rate)
    first, second = track.runs[1:5], track.runs[5:]
    assert sorted(rate / OWN for rate, _ in first) == pytest.approx([0.5, 1.0, 2.5, 6.0])
    assert sorted(rate / OWN for rate, _ in second) == pytest.approx([2.5, 6.0])
    assert {steps for _, steps in second} == {2 * steps for _, steps in first}
    assert plan.learning_rate == pytest.approx(6 * OWN)
    assert plan.steps == 300  # three epochs at most


def test_of_equals_the_gentler_rate_wins(run: Callable[..., Any]) -> None:
    plan, _ = run(10_000, losses=lambda rate: 1.0 + 0.01 * (rate < OWN))
    assert plan.learning_rate == pytest.approx(0.5 * OWN)


def test_a_rate_that_diverges_never_wins(run: Callable[..., Any]) -> None:
    plan, _ = run(10_000, losses=lambda rate: math.inf if rate > 2 * OWN else 1.0)
    assert plan.learning_rate <= 2 * OWN
    kept = json.loads(Path("rung/race.json").read_text(), parse_constant=pytest.fail)
    assert None in [one["value"] for one in kept["race"]]


@pytest.mark.parametrize("look", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("seconds", [20, 60, 100, 200, 400])
def test_race_and_training_together_stay_within_the_time(seconds: float, look: float, run: Callable[..., Any]) -> None:
    plan, track = run(seconds, look=look)
    first = 2 + look
    assert track.seconds - first <= _race.SHARE * seconds
    looks = math.ceil(plan.steps / plan.eval_steps)
    assert 0.8 * seconds < track.seconds + plan.steps + looks * track.seconds_of_a_look <= seconds
    assert 1 <= looks <= _race.MOST_VALIDATIONS
    assert looks == 1 or looks * track.seconds_of_a_look <= _race.VALIDATING * seconds
    assert look or plan.steps > 0.6 * seconds


def test_the_loss_is_followed_as_often_as_the_time_allows(run: Callable[..., Any]) -> None:
    found = {}
    for look in (0.0, 0.1, 5.0, 60.0):  # 0.2 x 0.93 x (200 - 2 - 5) s are enough for three looks of 10 s
        plan, _ = run(200, look=look, learning_rate=1e-3)
        found[look] = math.ceil(plan.steps / plan.eval_steps)
        Path("rung/race.json").unlink()
    assert found == {0.0: 6, 0.1: 6, 5.0: 3, 60.0: 1}


def test_validating_as_often_as_a_person_says_takes_its_time_too(run: Callable[..., Any]) -> None:
    plan, track = run(200, look=1.0, learning_rate=1e-3, eval_steps=4)
    assert plan.eval_steps == 4
    assert 0.85 * 200 < track.seconds + plan.steps * (1 + 2.0 / 4) <= 200


def test_where_time_is_short_fewer_rates_race(run: Callable[..., Any]) -> None:
    # A race of four takes 3 x (4 + 2 x 2) = 24 steps at least, of two 3 x 2 = 6; a quarter of the time may go into it.
    assert len(run(100)[1].runs) == 1 + 6
    Path("rung/race.json").unlink()
    plan, track = run(30)
    assert [rate / OWN for rate, _ in track.runs[1:]] == pytest.approx([1.0, 2.5])
    Path("rung/race.json").unlink()
    plan, track = run(10)
    assert len(track.runs) == 1
    assert plan.learning_rate == OWN


def test_the_rates_of_an_encoder_are_its_own(run: Callable[..., Any]) -> None:
    _, track = run(10_000, kind="encoder", method="full")
    assert sorted({rate / full.ENCODER_LEARNING_RATE for rate, _ in track.runs}) == pytest.approx([0.5, 1.0, 2.5, 6.0])


def test_a_rate_of_the_persons_own_does_not_race(run: Callable[..., Any]) -> None:
    plan, track = run(1000, learning_rate=0.5)
    assert len(track.runs) == 1
    assert plan.learning_rate == 0.5


def test_epochs_of_the_persons_own_are_kept_to(run: Callable[..., Any]) -> None:
    assert run(100_000, num_train_epochs=7.0)[0].steps == 700


def test_the_choice_is_written_down_and_not_made_again(run: Callable[..., Any]) -> None:
    plan, _ = run(1000, losses=lambda rate: 1 / rate)
    again, track = run(1000, losses=lambda rate: rate)
    assert track.runs == []
    assert (again.learning_rate, again.steps) == (plan.learning_rate, plan.steps)
    assert [dict(one) for one in again.race] == [dict(one) for one in plan.race]


def test_what_a_frozen_body_makes_of_the_rows_is_kept_from_racer_to_racer(toy_task: ToyTask) -> None:
    """A job that does not know its model reads all rows anew: a race of seven runs took eight times its share."""
    prepared = SimpleNamespace(identity="of the model")
    bench: Any = SimpleNamespace(model=SimpleNamespace(prepared=prepared), encoded=[object()], encoded_validation=[])
    runner = _race._Runner(bench, tunesmith.load(toy_task()), [])
    assert runner._job((), 3, 1e-3).prepared.identity == "of the model"
