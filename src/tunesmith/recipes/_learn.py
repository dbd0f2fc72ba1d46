"""One training from the base to the best weights: a method attached, its rows learned, and what that took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.config import Chosen, Project
from tunesmith.core.progress import say
from tunesmith.core.records import Encoded
from tunesmith.core.seed import seed_everything
from tunesmith.engine.begin import attach
from tunesmith.engine.fit import Fit, Job, fit
from tunesmith.evaluation.answers import Prompting
from tunesmith.evaluation.forgetting import Base
from tunesmith.methods._attachment import trainable
from tunesmith.recipes import _artifacts
from tunesmith.recipes._forgetting import Restraint, restrain
from tunesmith.recipes._method import settled
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._work import Model


@dataclass(frozen=True, slots=True)
class Learned:
    """A method, attached and trained: how the model is asked now, and what the training was like."""

    method: Chosen
    prompting: Prompting
    outcome: Outcome
    done: Fit
    restraint: Restraint

    def lose(self) -> None:
        """Measure what the model has lost, into the outcome."""
        self.restraint.tell(self.outcome, self.method, self.prompting.prefix)


def learn(
    project: Project,
    model: Model,
    rows: Sequence[Encoded],
    validation: Sequence[Encoded],
    folder: Path,
    told: Mapping[str, Any],
    base: Base | None = None,
) -> Learned:
    """Attach `project.method` to the model, which is still the base, and train it on `rows`.

    `told` goes into the receipt, which is written to `folder` before the first step; a training that was interrupted
    goes on from its last checkpoint there. Raises Mistake where it cannot fit or learn.
    """
    restraint = restrain(project, model, len(rows), base)
    method = settled(project.method, project, model, rows, folder)
    seed_everything(project.seed)
    attach(model.prepared, method)
    prefix = _artifacts.prefix_of(method, model)
    job = Job(
        model.prepared,
        project.model_copy(update={"method": method}),
        [*rows, *restraint.rows],
        validation,
        prefix,
        folder,
        seconds=project.budget.minutes * 60,
        description=method.name,
        penalties=restraint.penalties(prefix),
        gate=restraint.gate(prefix),
    )
    receipt = {**job.receipt(), **told, "replayed_rows": len(restraint.rows), "template": model.form.hash}
    _artifacts.write_json(folder / "receipt.json", receipt)
    cut = f"{receipt['rows_truncated']} rows cut, {receipt['rows_dropped']} dropped"
    say(f"{receipt['trained_tokens']:,} of {receipt['tokens']:,} tokens trained, {cut}")
    done = fit(job)
    outcome = Outcome(method.name, reason="; ".join(note for note in (done.stopped, *done.events[:3]) if note))
    outcome.train_seconds, outcome.curve, outcome.receipt = done.seconds, done.curve, receipt
    outcome.trainable_parameters = trainable(model.loaded.model).count
    outcome.config = {**method.as_dict(), "learning_rate": job.plan.learning_rate, "steps": done.steps}
    return Learned(method, Prompting(prefix=prefix), outcome, done, restraint)
