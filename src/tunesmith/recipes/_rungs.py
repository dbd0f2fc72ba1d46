"""The rungs: each a way of getting the job done, tried on the same validation rows and priced the same way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunesmith.core.config import Chosen, Project, choose
from tunesmith.core.machine import PeakMemory
from tunesmith.core.records import Score, Text
from tunesmith.core.rooms import choice
from tunesmith.core.seed import derive, seed_everything
from tunesmith.engine.begin import attach
from tunesmith.engine.fit import Fit, Job, fit
from tunesmith.evaluation.answers import Answerer, Answers, Prompting
from tunesmith.evaluation.reader_answers import ReaderAnswerer
from tunesmith.methods._attachment import trainable
from tunesmith.metrics._measure import Measurement, measure
from tunesmith.models.load import context_length
from tunesmith.prompts.budget import fitting_shots
from tunesmith.prompts.shots import Shots
from tunesmith.recipes import _artifacts
from tunesmith.recipes._forgetting import Restraint
from tunesmith.recipes._method import settled
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._race import RacePlan, race
from tunesmith.recipes._work import Examples, Model

PROMPT_RUNGS = ("zero_shot", "few_shot")
MOST_SHOTS = 128
PATIENCE = 2
"""Numbers of shots in a row that may bring nothing: on a hundred rows one disappointment is often chance."""
PROBE_ROWS, FEWEST_PROBE_ROWS, PROBE_SHARE = 96, 16, 0.2
"""Validation rows on which a number of shots is tried; fewer where that takes more than its share of the time."""


@dataclass
class Bench:
    """What all rungs are tried with: the model, the rows, the training rows encoded, what holds them to the base."""

    project: Project
    model: Model
    examples: Examples
    validation: Sequence[Any]
    encoded: Sequence[Any]
    encoded_validation: Sequence[Any]
    cut: dict[str, Any]
    restraint: Restraint
    seconds_per_query: float = 0.0
    forgetting_seconds: float = 0.0
    labels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = tuple(self.project.task.module.candidates(self.project.task.config))

    @property
    def answerer(self) -> Answerer | ReaderAnswerer:
        """Answers rows with the model as it is at the moment."""
        return self.model.answerer(self.project.task, self.project.objective)

    @property
    def prompted(self) -> Answerer:
        """Answers rows by being asked. Raises Mistake for a model that only reads."""
        return Answerer(self.model.prepared, self.model.template, self.project.task)


@dataclass(frozen=True, slots=True)
class Tried:
    """A rung's outcome with what is not written into climb.json: its rows' scores."""

    outcome: Outcome
    scores: tuple[Score, ...]

    def measurements(self) -> dict[str, Measurement]:
        """Every metric of the task on the validation rows."""
        return {name: Measurement(**one) for name, one in self.outcome.metrics.items()}


def zero_shot(bench: Bench, folder: Path) -> Tried:
    """Ask without an example."""
    with _priced(bench, Outcome("zero_shot")) as outcome:
        answers = bench.answerer.answer(bench.validation, description="zero_shot")
        bench.seconds_per_query = answers.seconds_per_query
        return _finish(bench, outcome, answers, Prompting(), folder)


def few_shot(bench: Bench, folder: Path, seconds: float) -> Tried:
    """Put worked examples into the prompt, for labels with the prompt's leaning taken out or not.

    Twice as many each time, until the context is full, the score has twice not risen or the time is up.
    """
    if bench.project.task.module.RECORD is Text:
        raise NoRoom("documents ask nothing that could be shown answered")
    until = time.monotonic() + seconds - bench.seconds_per_query * len(bench.validation) * 2
    with _priced(bench, Outcome("few_shot")) as outcome:
        pool, seed = Shots(bench.examples.train), derive(bench.project.seed, "shots")
        affordable = int(PROBE_SHARE * seconds / bench.seconds_per_query) if bench.seconds_per_query else PROBE_ROWS
        probe = bench.validation[: max(FEWEST_PROBE_ROWS, min(PROBE_ROWS, affordable))]
        best: tuple[float, Prompting, Answers] | None = None
        k, most, misses = 1, _room(bench, pool, seed), 0
        while k <= most and misses < PATIENCE and (best is None or time.monotonic() < until):
            shots = tuple(pool.choose(None, k, "balanced", seed))
            value, prompting, answers = _calibrated(bench, Prompting(shots), probe)
            outcome.race.append({"shots": k, "calibrated": bool(prompting.offsets), "value": value})
            if best is None or value > best[0]:
                best, misses = (value, prompting, answers), 0
            else:
                misses += 1
            k *= 2
        if best is None:
            raise NoRoom("not one example fits into the context beside the longest question")
        prompting = best[1]
        outcome.config = {"shots": len(prompting.shots), "calibrated": bool(prompting.offsets)}
        answers = bench.answerer.answer(bench.validation, prompting, "few_shot")
        return _finish(bench, outcome, answers, prompting, folder)


class NoRoom(Exception):
    """A rung that cannot be tried on this data; the climb goes on without it."""


def trained(bench: Bench, name: str, folder: Path, seconds: float) -> Tried:
    """Train the method `name` and measure it within `seconds`: a race over learning rates, then the run itself."""
    seed_everything(derive(bench.project.seed, name))
    own = bench.project.method
    method = own if own.name == name else choose("methods", name)
    after = 1.3 * bench.seconds_per_query * len(bench.validation) + bench.forgetting_seconds
    if seconds <= after:
        raise NoRoom(f"too little time: {seconds:.0f} s would be its share, and measuring alone takes {after:.0f} s")
    with _priced(bench, Outcome(name)) as outcome:
        begun = time.monotonic()
        method = settled(method, bench.project, bench.model, bench.encoded, folder)
        project = bench.project.model_copy(update={"method": method})
        solved, left = hasattr(method.module, "solve"), seconds - after - (time.monotonic() - begun)
        plan = RacePlan(0.0, 1) if solved else race(bench, project, folder, left, outcome.race)
        project = project.model_copy(update={"learning_rate": plan.learning_rate, "eval_steps": plan.eval_steps})
        left = max(1.0, seconds - after - (time.monotonic() - begun))
        with attached(bench, method) as prefix:
            outcome.trainable_parameters = trainable(bench.model.loaded.model).count
            job = Job(
                bench.model.prepared,
                project,
                bench.encoded,
                bench.encoded_validation,
                prefix,
                folder,
                steps=plan.steps,
                seconds=left,
                description=name,
                penalties=bench.restraint.penalties(prefix),
            )
            done = fit(job)
            _tell(outcome, done, bench, time.monotonic() - begun)
            outcome.config = {
                **method.as_dict(),
                "learning_rate": plan.learning_rate,
                "steps": done.steps,
                "epochs": round(done.steps * job.rows_a_step / len(bench.encoded), 2),
            }
            answers = bench.answerer.answer(bench.validation, Prompting(prefix=prefix), name)
            bench.restraint.tell(outcome, method, prefix)
            return _finish(bench, outcome, answers, Prompting(prefix=prefix), folder, method)


@contextmanager
def attached(bench: Bench, method: Chosen) -> Iterator[tuple[int, ...]]:
    """Attach a method to the bench's model for a while; gives its virtual tokens. The base comes back bit for bit."""
    model = bench.model.loaded.model
    attach(bench.model.prepared, method)
    try:
        yield _artifacts.prefix_of(method, bench.model)
    finally:
        method.module.detach(model)


@contextmanager
def _priced(bench: Bench, outcome: Outcome) -> Iterator[Outcome]:
    """Fill in what a rung took: seconds in all, peak memory, money where an hour has a price."""
    begun = time.monotonic()
    with PeakMemory() as peak:
        yield outcome
    outcome.seconds = time.monotonic() - begun
    outcome.peak_memory_mb = peak.mb
    outcome.money = bench.project.budget.money(outcome.seconds)


def _finish(
    bench: Bench, outcome: Outcome, answers: Answers, prompting: Prompting, folder: Path, method: Chosen | None = None
) -> Tried:
    task = bench.project.task
    outcome.measured(answers, bench.validation, task)
    outcome.artifact_bytes = _artifacts.save(folder / "artifact", bench.model, task, prompting, method)
    if method is None:
        outcome.forgetting_kl = outcome.forgetting_bits_per_byte = 0.0  # the very same weights
    return Tried(outcome, answers.scores)


def _tell(outcome: Outcome, done: Fit, bench: Bench, seconds: float) -> None:
    outcome.train_seconds = seconds
    outcome.curve = done.curve
    outcome.receipt = {**done.receipt, **bench.cut}
    notes = [note for note in (done.stopped, *done.events[:3]) if note]
    outcome.reason = "; ".join(notes)


def _room(bench: Bench, pool: Shots, seed: int) -> int:
    """How many shots fit into the context beside the longest question and its answer."""
    answerer, module, config = bench.prompted, bench.project.task.module, bench.project.task.config
    context = context_length(bench.model.loaded.model.config)
    questions = bench.model.template.prompts(answerer.prompts(bench.validation, Prompting()))
    longest = max(map(len, questions)) + module.max_new_tokens(config)
    shots = pool.choose(None, MOST_SHOTS, "balanced", seed)
    turns = [module.conversation(shot, config) for shot in shots]
    return fitting_shots(turns, longest, bench.model.template, context)


def _calibrated(bench: Bench, prompting: Prompting, probe: Sequence[Any]) -> tuple[float, Prompting, Answers]:
    """The better of the prompt as it is and calibrated, on the probe rows: its value, higher is better."""
    answerer, module = bench.prompted, bench.project.task.module
    answers = answerer.answer(probe, prompting, f"{len(prompting.shots)} shots")
    found = [(answers.measured, prompting, answers)]
    if bench.labels:
        for how in ("contextual", "batch"):
            rows = bench.examples.train[: len(probe)]
            leaning = replace(prompting, offsets=answerer.calibration(prompting, how, rows))
            scores = answerer.rejudge(answers, probe, leaning.offsets)
            found.append((measure(module.METRIC, scores), leaning, answers))
    sign = 1.0 if choice("metrics", module.METRIC).BETTER == "higher" else -1.0
    best = max(found, key=lambda one: sign * one[0].value)
    return sign * best[0].value, best[1], best[2]
