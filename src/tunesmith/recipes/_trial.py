"""A trial of a sweep: one training from the base with values of its own, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import say
from tunesmith.core.seed import seed_everything
from tunesmith.engine.fit import Job, fit
from tunesmith.engine.loop import Diverged
from tunesmith.engine.memory import DoesNotFit
from tunesmith.evaluation.forgetting import remember
from tunesmith.recipes import _study
from tunesmith.recipes._bench import encode_training, encode_validation
from tunesmith.recipes._forgetting import restrain
from tunesmith.recipes._method import settled
from tunesmith.recipes._objective import with_objective
from tunesmith.recipes._rungs import Bench, attached
from tunesmith.recipes._space import Dimension, tried
from tunesmith.recipes._work import Examples, model_of

if TYPE_CHECKING:
    from optuna import Study, Trial


class _TimeIsUp(Exception):
    """A trial that could not be finished in the time given."""


def open_bench(project: Project, examples: Examples, objectives: Sequence[str]) -> Bench:
    """The model and the rows that every trial begins with."""
    model = model_of(project).reading(project.method, project.task)
    project = with_objective(project, model)
    encoded, cut = encode_training(project, model, examples.train)
    forgets = "forgetting" in objectives
    if forgets and model.reader is not None:
        raise Mistake("objectives: forgetting is KL, which what reads rows has not; type --objectives quality,seconds")
    base = remember(model.prepared, model.template) if forgets else None
    restraint = restrain(project, model, len(encoded), base)
    validation = encode_validation(project, model, examples)
    return Bench(project, model, examples, (), [*encoded, *restraint.rows], validation, cut, restraint)


def run_trial(
    study: Study, bench: Bench, dimensions: Sequence[Dimension], objectives: Sequence[str], left: float
) -> bool:
    """One trial; False when the time is up. An interrupted one is put back, to be begun anew."""
    import optuna

    trial, begun = _study.ask(study), time.monotonic()
    params = {one.key: one.suggest(trial) for one in dimensions}
    if (twin := _study.twin(study, trial)) is not None:
        _study.copy(study, trial, twin)
        return True
    state, values, reason = optuna.trial.TrialState.COMPLETE, None, ""
    try:
        values = _tried(bench, tried(bench.project, params), trial, objectives, left)
    except optuna.TrialPruned:
        state, reason = optuna.trial.TrialState.PRUNED, "ended early: not among the better half at this point"
    except (Diverged, DoesNotFit) as mistake:
        state, reason = optuna.trial.TrialState.FAIL, str(mistake)
    except (_TimeIsUp, KeyboardInterrupt) as stop:
        _study.put_back(study, trial)
        if isinstance(stop, KeyboardInterrupt):
            raise
        return False
    trial.set_user_attr("seconds", time.monotonic() - begun)
    trial.set_user_attr("reason", reason)
    study.tell(trial, values, state)
    said = ", ".join(f"{key} {f'{value:.3g}' if isinstance(value, float) else value}" for key, value in params.items())
    reached = ", ".join(f"{name} {value:.4g}" for name, value in zip(objectives, values or (), strict=False))
    say(f"trial {trial.number}: {said}: {reason or reached}")
    return True


def _tried(bench: Bench, project: Project, trial: Trial, objectives: Sequence[str], left: float) -> list[float]:
    """Train with a trial's values; gives what it is judged by. Raises TrialPruned, and _TimeIsUp."""
    import optuna

    validations: list[float] = []

    def judge(step: int, loss: float) -> None:
        validations.append(loss)
        if len(objectives) == 1:
            trial.report(loss, len(validations))
            if step < job.plan.steps and trial.should_prune():
                raise optuna.TrialPruned

    seed_everything(project.seed)
    method = settled(project.method, project, bench.model, bench.encoded, Path(project.output_dir))
    project, name = project.model_copy(update={"method": method}), f"trial {trial.number}"
    with attached(bench, method) as prefix:
        penalties = bench.restraint.penalties(prefix)
        given = (bench.model.prepared, project, bench.encoded, bench.encoded_validation, prefix)
        job = Job(*given, seconds=left, description=name, penalties=penalties)
        done = fit(job, on_validation=judge)
        if done.stopped.startswith("time"):
            raise _TimeIsUp
        found = {"quality": done.best_loss, "seconds": done.seconds}
        if "forgetting" in objectives and (lost := bench.restraint.lost(method, prefix)) is not None:
            found["forgetting"] = lost.kl
    return [found[objective] for objective in objectives]
