"""A short race over learning rates on the user's own data, and how long the run itself may be.

Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943): every rate trains for a few steps, the better half
for twice as many, and so on until one is left; they are compared by the loss on validation rows they do not train on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.config import Project
from tunesmith.core.progress import say
from tunesmith.core.records import Encoded
from tunesmith.core.seed import derive, seed_everything
from tunesmith.engine.fit import Job, fit
from tunesmith.engine.loop import Diverged
from tunesmith.methods._rate import suited
from tunesmith.recipes._artifacts import write_json

if TYPE_CHECKING:
    from tunesmith.recipes._rungs import Bench

FACTORS = (1.0, 2.5, 0.5, 6.0)
"""The rates that race, as multiples of the method's own; where time is short the last are left out."""
FEWEST_STEPS = 3
"""Steps of the first round: fewer tell nothing."""
SHARE = 0.25
"""Share of a rung's training time that the race may take."""
VALIDATING, MOST_VALIDATIONS = 0.2, 6
"""Share of a run's time that following the loss may take, and how often it is looked at where time is plenty."""
MOST_EPOCHS = 3.0
"""Passes over the training rows at most; validation keeps the best point on the way."""
AS_GOOD = 1.1
"""Losses within this factor of the best are a tie: so few steps and rows tell no finer."""
RACE_TOKENS = 4096
"""Tokens of the validation rows that racers are compared on: each racer's measuring must be cheap beside its steps."""


@dataclass(frozen=True, slots=True)
class RacePlan:
    """What the race found: the learning rate, the steps that the time allows, and after how many each to validate."""

    learning_rate: float
    steps: int
    eval_steps: int | None = None
    race: tuple[dict[str, Any], ...] = ()


def race(bench: Bench, project: Project, folder: Path, seconds: float, told: list[dict[str, Any]]) -> RacePlan:
    """Choose learning rate and steps for `project.method` within `seconds`; `told` collects what was seen.

    The choice is written down, so that an interrupted rung goes on with the same one.
    """
    kept = folder / "race.json"
    if kept.exists():
        plan = RacePlan(**json.loads(kept.read_text(encoding="utf-8")))
        told += plan.race
        return plan
    runner, rates = _Runner(bench, project, told), _rates(project, bench.model.prepared.kind)
    runner.run(rates[0], steps=2)  # the first steps touch memory for the first time and tell nothing of speed
    told.clear()
    most = runner.steps_in(MOST_EPOCHS if project.num_train_epochs == 1.0 else project.num_train_epochs)
    while len(rates) > 1 and _affordable(runner, len(rates), seconds) < FEWEST_STEPS:
        rates.pop()
    unit = max(FEWEST_STEPS, min(most // 8, _affordable(runner, len(rates), seconds)))
    while len(rates) > 1:
        losses = {rate: runner.run(rate, steps=unit) for rate in rates}
        rates = _better_half(rates, losses)
        unit *= 2
    steps, every = _lasting(runner, project.eval_steps, most, 0.93 * (seconds - runner.seconds))
    plan = RacePlan(rates[0], steps, every, tuple(told))
    write_json(kept, asdict(plan))
    say(f"{project.method.name}: learning rate {plan.learning_rate:.2g}, {steps} steps")
    return plan


def _affordable(runner: _Runner, racers: int, seconds: float) -> int:
    """Steps of the first round of a race that takes its share of the time."""
    runs, rounds = _rounds(racers)
    return int((SHARE * seconds - runs * runner.seconds_per_validation) / (rounds * runner.seconds_per_step))


def _lasting(runner: _Runner, eval_steps: int | None, most: int, seconds: float) -> tuple[int, int]:
    """Steps that fit into the time, and after how many each to validate: `eval_steps`, else as may be afforded."""
    step, look = runner.seconds_per_step, runner.seconds_of_a_look
    if eval_steps is not None:
        return max(1, min(most, int(seconds / (step + look / eval_steps)))), eval_steps
    looks = max(1, min(MOST_VALIDATIONS, int(VALIDATING * seconds / look) if look else MOST_VALIDATIONS))
    steps = max(1, min(most, int((seconds - looks * look) / step)))
    return steps, math.ceil(steps / looks)


def within(rows: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """The first rows that have `tokens` tokens together at most, and one at least."""
    total, kept = 0, list[Encoded]()
    for row in rows:
        total += len(row.ids)
        if kept and total > tokens:
            break
        kept.append(row)
    return kept


def _tokens(rows: Sequence[Encoded]) -> int:
    return sum(len(row.ids) for row in rows)


class _Runner:
    """Trains afresh for a few steps, and keeps account of the time that takes."""

    def __init__(self, bench: Bench, project: Project, told: list[dict[str, Any]]) -> None:
        self.bench, self.project, self.told = bench, project, told
        self.validation = within(bench.encoded_validation, RACE_TOKENS)
        self.seconds_per_step = 1.0
        self.seconds_per_validation = 0.0
        self.begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the race began."""
        return time.monotonic() - self.begun

    @property
    def seconds_of_a_look(self) -> float:
        """Seconds that validating takes on the rows that the run itself is followed on."""
        raced, followed = (_tokens(rows) for rows in (self.validation, self.bench.encoded_validation))
        return self.seconds_per_validation * followed / max(1, raced)

    def steps_in(self, epochs: float) -> int:
        """Steps that so many passes over the training rows take."""
        return math.ceil(epochs * len(self.bench.encoded) / self._job((), 1, 1.0).rows_a_step)

    def run(self, rate: float, *, steps: int) -> float:
        """Validation loss after `steps` steps at `rate`; infinite when it diverged."""
        from tunesmith.recipes._rungs import attached

        seed_everything(derive(self.project.seed, self.project.method.name))
        with attached(self.bench, self.project.method) as prefix:
            job = self._job(prefix, steps, rate)
            job.penalties = self.bench.restraint.penalties(prefix)
            try:
                done = fit(job)
            except Diverged:
                self.told.append({"learning_rate": rate, "steps": steps, "value": None})
                return math.inf
        self.seconds_per_validation = done.validation_seconds
        self.seconds_per_step = (done.seconds - done.validation_seconds) / steps
        value = done.best_loss if math.isfinite(done.best_loss) else None
        self.told.append({"learning_rate": rate, "steps": steps, "value": value})
        return done.best_loss

    def _job(self, prefix: tuple[int, ...], steps: int, rate: float) -> Job:
        quick = {"learning_rate": rate, "lr_scheduler_type": "constant", "eval_steps": steps, "warmup_ratio": 0.2}
        return Job(
            self.bench.model.prepared,
            self.project.model_copy(update=quick),
            self.bench.encoded,
            self.validation,
            prefix,
            steps=steps,
            description=f"{self.project.method.name}: trying {rate:.2g}",
        )


def _better_half(rates: list[float], losses: dict[float, float]) -> list[float]:
    """The half with the lower losses; of two that are as good as each other the lower rate, which forgets less."""
    best = min(losses.values())
    even = {rate: best if losses[rate] <= AS_GOOD * best else losses[rate] for rate in rates}
    return sorted(rates, key=lambda rate: (even[rate], rate))[: math.ceil(len(rates) / 2)]


def _rates(project: Project, kind: str) -> list[float]:
    if project.learning_rate is not None:
        return [project.learning_rate]
    own = suited(project.method.module, kind)
    return [own * factor for factor in FACTORS]


def _rounds(racers: int) -> tuple[int, int]:
    """How many runs a whole race is, and how many times the first, shortest one they take together."""
    runs, total, length = 0, 0, 1
    while racers > 1:
        runs, total = runs + racers, total + racers * length
        racers, length = math.ceil(racers / 2), 2 * length
    return runs, max(1, total)
