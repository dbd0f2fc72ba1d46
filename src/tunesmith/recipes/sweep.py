"""Sweep: search the keys of a task file for the values that learn best, trial by trial, bad ones ended early."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.files import atomic_write
from tunesmith.core.progress import track
from tunesmith.evaluation.report import write_sweep_report
from tunesmith.recipes import _study
from tunesmith.recipes._artifacts import write_json
from tunesmith.recipes._space import Dimension, space, tried, usual_values
from tunesmith.recipes._trial import open_bench, run_trial
from tunesmith.recipes._work import Examples, folder_of, need, read_examples

BEST = "best.yaml"


def sweep(
    project: Project, *, trials: int = 20, minutes: float | None = None, objectives: Sequence[str] = ("quality",)
) -> dict[str, Any]:
    """Try values of `project.sweep` (or the usual ones) and return what `sweep.json` holds; `best.yaml` is to be run.

    Every trial trains from the base on the same rows and is judged by its loss on the same validation rows; with more
    `objectives` (`seconds`, `forgetting`) none is ended early, and the front is told. `trials` are those in the folder
    in all, `minutes` (default: the budget's) those of this worker; a trial the time cuts off is begun anew by the next.
    Raises Mistake for what cannot be searched, for a folder with another sweep, and when no trial could be finished.
    """
    for name in objectives:
        if name not in _study.OBJECTIVES:
            raise Mistake(f"objectives: there is no '{name}'; {nearest(name, _study.OBJECTIVES)}")
    begun, seconds = time.monotonic(), 60 * (project.budget.minutes if minutes is None else minutes)
    project, examples = read_examples(project)
    need(examples.train, "train")
    need(examples.validation, "validation")
    dimensions, folder = space(project), folder_of(project)
    study = _study.open_study(folder, _key(project, examples, objectives, dimensions), objectives, project.seed)
    study.enqueue_trial(usual_values(project, dimensions), skip_if_exists=True)
    atomic_write(folder / "config.yaml", project.to_yaml())
    bench = open_bench(project, examples, objectives)
    with track(trials, "trials", "sweep") as bar:
        bar.advance(min(trials, _study.counted(study)))
        while _study.counted(study) < trials and (left := seconds - (time.monotonic() - begun)) > 0:
            if not run_trial(study, bench, dimensions, objectives, left):
                break
            bar.advance(1, **({"best": one.values[0]} if (one := _study.best(study)) else {}))
    return _told(study, project, folder, objectives, dimensions)


def _key(
    project: Project, examples: Examples, objectives: Sequence[str], dimensions: Sequence[Dimension]
) -> Mapping[str, Any]:
    told = {name: value for name, value in project.as_dict().items() if name in {"model", "task", "method", "seed"}}
    searched = [one.as_dict() for one in dimensions]
    return {**told, "data": examples.version, "objectives": list(objectives), "search": searched}


def _told(
    study: Any, project: Project, folder: Path, objectives: Sequence[str], dimensions: Sequence[Dimension]
) -> dict[str, Any]:
    """Write down what all workers found so far: `sweep.json`, `best.yaml` and the page."""
    best = _study.best(study)
    if best is None:
        raise Mistake("no trial came to its end; raise --minutes, or narrow what is searched; see the reasons above")
    chosen = tried(project, best.params).model_copy(update={"output_dir": str(folder / "best")})
    atomic_write(folder / BEST, chosen.to_yaml())
    told = {
        "name": folder.name,
        "model": project.model,
        "task": project.task.as_dict(),
        "method": project.method.name,
        "objectives": list(objectives),
        "search": [one.as_dict() for one in dimensions],
        "trials": _study.rows(study, objectives, dimensions),
        "best": {
            "number": best.number,
            "params": best.params,
            "values": dict(zip(objectives, best.values, strict=True)),
        },
        "importances": _study.importances(study),
        "command": f"tunesmith train {folder / BEST}",
    }
    write_json(folder / "sweep.json", told)
    write_sweep_report(folder, told)
    return told
