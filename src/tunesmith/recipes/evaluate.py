"""Evaluate: any prompt or artifact on a split of the task's data, with intervals and prices."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake
from tunesmith.core.machine import PeakMemory
from tunesmith.core.seed import derive
from tunesmith.evaluation.answers import Answerer, Prompting
from tunesmith.prompts.shots import Shots
from tunesmith.recipes import _artifacts
from tunesmith.recipes._objective import with_objective
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._record import record_in
from tunesmith.recipes._work import model_of, need, need_memory, read_examples


def evaluate(
    project: Project,
    *,
    artifact: str | Path | None = None,
    split: Literal["test", "validation"] = "test",
    how: Literal["random", "balanced", "similar"] = "balanced",
    calibrate: Literal["none", "contextual", "batch"] = "none",
    limit: int | None = None,
    task_name: str | None = None,
) -> dict[str, Any]:
    """Answer a split's rows with `project.shots` examples in the prompt, or with an artifact, and measure.

    Returns the metrics with their intervals and n, seconds and tokens a query, and example outputs. `limit` uses the
    first so many rows only; `task_name` is that of `project` in a mixture. Raises Mistake for a split without rows,
    and for shots given beside an artifact.
    """
    if artifact is not None and project.shots:
        raise Mistake(
            "evaluate: got --shots and --artifact; expected one of them: an artifact brings its own way of asking"
        )
    place = _artifacts.find(artifact, task_name) if artifact is not None else None
    project, examples = read_examples(project)
    rows = getattr(examples, split)[:limit]
    need(rows, split)
    with PeakMemory() as peak:
        model = model_of(project)
        need_memory(project)
        project = with_objective(project, model)
        if place is not None:
            answerer, prompting = _artifacts.lay_on(model, place, project)
        elif model.reader is not None:
            if model.loaded.made:
                raise Mistake(
                    f"evaluate: {project.model} has no head for {project.task.name} yet; expected a trained one; "
                    "type `tunesmith train` first and give its run as --artifact"
                )
            answerer, prompting = model.answerer(project.task, project.objective), Prompting()
        else:
            answerer = Answerer(model.prepared, model.template, project.task, project.objective)
            prompting = _prompting(answerer, project, examples.train, how, calibrate)
        answers = answerer.answer(rows, prompting, f"{split} rows")
    outcome = Outcome(Path(artifact).name if artifact is not None else f"{project.shots}_shot")
    outcome.measured(answers, rows, answerer.task)
    outcome.peak_memory_mb, outcome.seconds = peak.mb, answers.seconds
    setting = {"split": split, "shots": prompting.similar or len(prompting.shots), "how": how, "calibrate": calibrate}
    if artifact is not None and (record := record_in(Path(artifact), Path(artifact).parent)) is not None:
        record.measured(split, answers.metrics, setting)
    told = asdict(outcome)
    return {
        "split": split,
        "model": project.model,
        "artifact": str(artifact) if artifact else None,
        "setting": setting,
        **told,
    }


def _prompting(answerer: Answerer, project: Project, pool: Any, how: Any, calibrate: str) -> Prompting:
    if not project.shots:
        prompting = Prompting()
    elif how == "similar":
        prompting = Prompting(tuple(pool), similar=project.shots)
    else:
        seed = derive(project.seed, "shots")
        prompting = Prompting(tuple(Shots(pool).choose(None, project.shots, how, seed)))
    if calibrate == "none":
        return prompting
    if not answerer.task.module.candidates(answerer.task.config):
        raise Mistake(f"calibrate: {project.task.name} has no labels to calibrate; leave --calibrate out")
    return Prompting(prompting.shots, prompting.similar, answerer.calibration(prompting, calibrate, pool[:96]))
