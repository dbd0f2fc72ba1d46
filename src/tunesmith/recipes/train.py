"""Train: one rung by hand. Goes on where it was killed; running it again repeats it bit for bit."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

from tunesmith.core.config import Project
from tunesmith.core.machine import PeakMemory, inspect
from tunesmith.core.progress import say
from tunesmith.core.records import Text
from tunesmith.evaluation.report import write_run_report
from tunesmith.recipes import _artifacts
from tunesmith.recipes._bench import encode_training, encode_validation
from tunesmith.recipes._learn import learn
from tunesmith.recipes._objective import with_objective
from tunesmith.recipes._record import recorded
from tunesmith.recipes._work import Examples, Model, folder_of, model_of, need, read_examples


def train(project: Project, *, evaluate: bool = True, has_past: bool = True) -> dict[str, Any]:
    """Train `project.method`, and return what `result.json` holds; the artifact lies in `artifact/`.

    With `evaluate` the validation rows are answered and forgetting is measured afterwards, the latter unless the model
    has no past that it could forget (it was made a moment ago). An interrupted run of the
    same task file in the same folder goes on from its last checkpoint. Raises Mistake for bad input, for a run that
    does not fit into memory, and for a folder that holds another run.
    """
    project, examples = read_examples(project)
    need(examples.train, "train")
    folder = folder_of(project)
    with recorded(project, "train", folder, examples) as record, PeakMemory() as peak:
        begun = time.monotonic()
        model = model_of(project)
        model = model.reading(project.method, project.task)
        if project.task.module.RECORD is Text and model.loaded.made:
            say(f"{project.model} has no head for {project.objective.name}: a new one, drawn from the seed, is trained")
        project = with_objective(project, model)
        encoded, cut = encode_training(project, model, examples.train)
        encoded_validation = encode_validation(project, model, examples)
        before = _before(project, model, examples) if evaluate else None
        learned = learn(project, model, encoded, encoded_validation, folder, cut)
        method, prompting, outcome = learned.method, learned.prompting, learned.outcome
        outcome.artifact_bytes = _artifacts.save(folder / "artifact", model, project.task, prompting, method)
        if evaluate and examples.validation:
            answers = model.answerer(project.task, project.objective).answer(examples.validation, prompting)
            outcome.measured(answers, examples.validation, project.task)
            if has_past:
                learned.lose()
            record.measured("validation", answers.metrics, {"rung": method.name})
        record.left(method.name, folder / "artifact", model.loaded.name)
        outcome.seconds = time.monotonic() - begun
        outcome.peak_memory_mb = record.peak_memory_mb = peak.look()
        outcome.money = project.budget.money(outcome.seconds)
        result = {
            **asdict(outcome),
            "name": folder.name,
            "method": method.name,
            "task": project.task.as_dict(),
            "model": project.model,
            "data": {"version": examples.version, **examples.counts(), "notes": list(examples.notes)},
            "machine": inspect(torch=True).as_dict(),
            "before": before,
            "best_validation_loss": learned.done.best_loss if math.isfinite(learned.done.best_loss) else None,
            "max_kl": project.forgetting.max_kl,
            "command": f'tunesmith generate --artifact {folder} "your text"',
        }
        _artifacts.write_json(folder / "result.json", result)
        write_run_report(folder, result)
        return result


def _before(project: Project, model: Model, examples: Examples) -> dict[str, Any] | None:
    """The metrics of the untuned model, for further pre-training; elsewhere a climb's zero_shot tells them."""
    if project.task.module.RECORD is not Text or not examples.validation:
        return None
    metrics = model.answerer(project.task, project.objective).answer(examples.validation, description="before").metrics
    say(f"before: {', '.join(f'{name} {one.value:.3f}' for name, one in metrics.items())}")
    return {name: asdict(one) for name, one in metrics.items()}
