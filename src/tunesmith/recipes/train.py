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
from tunesmith.core.seed import seed_everything
from tunesmith.engine.begin import attach
from tunesmith.engine.fit import Job, fit
from tunesmith.evaluation.answers import Prompting
from tunesmith.evaluation.report import write_run_report
from tunesmith.methods._attachment import trainable
from tunesmith.recipes import _artifacts
from tunesmith.recipes._bench import encode_training, encode_validation
from tunesmith.recipes._forgetting import restrain
from tunesmith.recipes._method import settled
from tunesmith.recipes._objective import with_objective
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._record import recorded
from tunesmith.recipes._work import Examples, Model, folder_of, need, open_model, read_examples


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
        model = open_model(project.model, project.precision, project.task, project.seed)
        model = model.reading(project.method, project.task)
        project = with_objective(project, model)
        encoded, cut = encode_training(project, model, examples.train)
        restraint = restrain(project, model, len(encoded))
        encoded_validation = encode_validation(project, model, examples)
        before = _before(project, model, examples) if evaluate else None
        method = settled(project.method, project, model, encoded, folder)
        seed_everything(project.seed)
        attach(model.prepared, method)
        prefix = _artifacts.prefix_of(method, model)
        project = project.model_copy(update={"method": method})
        job = Job(
            model.prepared,
            project,
            [*encoded, *restraint.rows],
            encoded_validation,
            prefix,
            folder,
            seconds=project.budget.minutes * 60,
            description=method.name,
            penalties=restraint.penalties(prefix),
            gate=restraint.gate(prefix),
            identity=model.loaded.identity,
        )
        receipt = {**job.receipt(), **cut, "replayed_rows": len(restraint.rows), "template": model.form.hash}
        _artifacts.write_json(folder / "receipt.json", receipt)
        say(f"{receipt['trained_tokens']:,} of {receipt['tokens']:,} tokens trained, {_cut(cut)}")
        done = fit(job)
        outcome = Outcome(method.name, reason="; ".join(note for note in (done.stopped, *done.events[:3]) if note))
        outcome.train_seconds, outcome.curve, outcome.receipt = done.seconds, done.curve, receipt
        outcome.trainable_parameters = trainable(model.loaded.model).count
        outcome.config = {**method.as_dict(), "learning_rate": job.plan.learning_rate, "steps": done.steps}
        prompting = Prompting(prefix=prefix)
        outcome.artifact_bytes = _artifacts.save(folder / "artifact", model, project.task, prompting, method)
        if evaluate and examples.validation:
            answers = model.answerer(project.task, project.objective).answer(examples.validation, prompting)
            outcome.measured(answers, examples.validation, project.task)
            if has_past and (lost := restraint.lost(method, prefix)) is not None:
                outcome.forgetting_kl, outcome.forgetting_bits_per_byte = lost.kl, lost.rise
            record.measured("validation", answers.metrics, {"rung": method.name})
        record.left(method.name, folder / "artifact", model.loaded.name)
        outcome.seconds = time.monotonic() - begun
        outcome.peak_memory_mb = record.peak_memory_mb = peak.look()
        if project.budget.price_per_hour is not None:
            outcome.money = outcome.seconds / 3600 * project.budget.price_per_hour
        result = {
            **asdict(outcome),
            "name": folder.name,
            "method": method.name,
            "task": project.task.as_dict(),
            "model": project.model,
            "data": {"version": examples.version, **examples.counts(), "notes": list(examples.notes)},
            "machine": inspect(torch=True).as_dict(),
            "before": before,
            "best_validation_loss": done.best_loss if math.isfinite(done.best_loss) else None,
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


def _cut(cut: dict[str, Any]) -> str:
    return f"{cut['rows_truncated']} rows cut, {cut['rows_dropped']} dropped"
