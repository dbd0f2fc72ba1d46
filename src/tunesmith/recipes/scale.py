"""Scale: how strongly an artifact takes part, chosen after training on validation rows against what it forgets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.config import Chosen, Forgetting, Project, choose, load_project
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import say
from tunesmith.evaluation.forgetting import forgetting, remember
from tunesmith.evaluation.report import write_scale_report
from tunesmith.methods._artifact import Artifact, describe
from tunesmith.methods._strength import at_strength
from tunesmith.metrics._measure import Measurement
from tunesmith.recipes import _artifacts
from tunesmith.recipes._record import record_in
from tunesmith.recipes._strengths import FACTORS, Strength, choose_strength, verdict
from tunesmith.recipes._work import Model, model_of, need, open_model, read_examples

_CONFIG = "config.yaml"


def scale(
    artifact: str | Path,
    *,
    factor: float | None = None,
    max_kl: float | None = None,
    project: Project | None = None,
    task_name: str | None = None,
    limit: int | None = None,
    output_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Try an artifact at several strengths, write it at the chosen one, and return what `scale.json` holds.

    With `max_kl` (default: that of the run's `forgetting`) it is the best on the validation rows among those inside;
    else the weakest that is not worse than the best beyond noise; or `factor`, by hand. `project` says the rows where
    the artifact lies in no run's folder, `task_name` whose they are where it serves several tasks, `limit` how many of
    them are answered. The scaled artifact loads like any other; it lies in `output_dir`, by default `scaled` in the
    run's folder. Raises Mistake for a prompt, which has no strength, for an encoder, and where even the weakest forgets
    more than `max_kl`.
    """
    if factor is not None and not 0 < factor <= 1:
        raise Mistake(f"--factor: got {factor:g}; expected more than 0, which is the base, and at most 1")
    place = _artifacts.find(artifact, task_name)
    run = place.parent if place.name == "artifact" else place
    if project is None and (config := _config_of(run)):
        project = load_project(config, {"task": task_name} if task_name else {})
    if factor is None and project is None:
        raise Mistake(f"{place}: lies in no run's folder; type --config task.yaml, or --factor 0.5 by hand")
    rows: Sequence[Any] = ()
    if project is not None:
        project, examples = read_examples(project)
        rows = examples.validation[:limit]
    if factor is None:
        need(rows, "validation")
    folder = Path(output_dir) if output_dir else _beside(run, place)
    told = _tried(place, project, task_name, rows, factor, max_kl, folder)
    _artifacts.write_json(folder / "scale.json", told)
    write_scale_report(folder, told)
    _keep(run, told)
    return told


def _tried(
    place: Path,
    project: Project | None,
    task_name: str | None,
    rows: Sequence[Any],
    factor: float | None,
    max_kl: float | None,
    folder: Path,
) -> dict[str, Any]:
    """Measure each strength, write the artifact at the one chosen, and tell."""
    about, asked = _about(place), project.forgetting if project else Forgetting()
    asked = asked.model_copy(update={} if max_kl is None else {"max_kl": max_kl})
    method = Chosen("methods", about.method, about.config)
    model = _opened(project, about)
    if model.reader is not None:
        raise Mistake(f"scale: {model.loaded.name} is an encoder, which writes nothing to measure forgetting on")
    base, live = remember(model.prepared, model.template), model.loaded.model
    answerer, prompting = _artifacts.lay_on(model, place, project, task_name)
    learned = {name: weight.clone() for name, weight in method.module.state(live).items()}
    tried = []
    for strength in FACTORS if factor is None else sorted({1.0, factor}, reverse=True):
        method.module.restore(live, at_strength(live, method.module, learned, strength))
        lost = forgetting(model.prepared, base, prefix=prompting.prefix)
        answers = answerer.answer(rows, prompting, f"{method.name} × {strength:g}") if rows else None
        tried.append(Strength(strength, lost.kl, lost.rise, answers))
        say(tried[-1].line())
    chosen = choose_strength(tried, asked, factor)
    method.module.restore(live, at_strength(live, method.module, learned, chosen.factor))
    _artifacts.save(folder / "artifact", model, _artifacts.tasks_of(place) or answerer.task, prompting, method)
    return {
        "name": place.parent.name if place.name == "artifact" else place.name,
        "verdict": verdict(chosen, tried, method.name),
        "command": f'tunesmith generate --artifact {folder} "your text"',
        "artifact": str(folder / "artifact"),
        "method": method.name,
        "model": model.loaded.name,
        "max_kl": asked.max_kl,
        "factor": chosen.factor,
        "factors": [{**one.told(), "chosen": one is chosen} for one in tried],
    }


def _config_of(run: Path) -> Path | None:
    """The task file of the run an artifact is of; one adapter of several lies in `tasks/NAME` of its run."""
    whole = run.parent.parent if run.parent.name == "tasks" else run
    return next((config for config in (run / _CONFIG, whole / _CONFIG) if config.exists()), None)


def _opened(project: Project | None, about: Artifact) -> Model:
    """The base, as the project has it, or as the artifact says by itself."""
    if project is not None:
        return model_of(project)
    origin = about.origin
    stored: Any = origin.quantization or None
    return open_model(origin.base, task=choose("tasks", **origin.task) if origin.task else None, quantization=stored)


def _about(place: Path) -> Artifact:
    """What the artifact says of itself; raises Mistake for one that is only a way of asking."""
    try:
        return describe(place)
    except Mistake:
        raise Mistake(f"{place}: is a prompt, which has no strength; expected an adapter or tuned weights") from None


def _beside(run: Path, place: Path) -> Path:
    return run / "scaled" if run != place else run.with_name(f"{run.name}-scaled")


def _keep(run: Path, told: dict[str, Any]) -> None:
    """Put the chosen strength into the store beside the run it belongs to, where there is one."""
    record = record_in(run)
    if record is None:
        return
    record.left(f"{told['method']} × {told['factor']:g}", Path(told["artifact"]), told["model"])
    for one in told["factors"]:
        if "metric" in one:
            measured = Measurement(**{key: one[key] for key in ("metric", "value", "low", "high", "n")})
            record.measured("validation", {measured.metric: measured}, {"factor": one["factor"]})
