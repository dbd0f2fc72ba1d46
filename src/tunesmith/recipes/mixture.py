"""Mixture: several tasks at once, into one adapter for all or one for each, over a base that is loaded once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.core.machine import PeakMemory, inspect
from tunesmith.core.mixture import Mixture
from tunesmith.evaluation.forgetting import Base, remember
from tunesmith.evaluation.report import write_mixture_report
from tunesmith.recipes import _artifacts
from tunesmith.recipes._learn import Learned, learn
from tunesmith.recipes._mixing import Member, make_ready, measured, read_members, receipt, together
from tunesmith.recipes._record import Record, recorded
from tunesmith.recipes._work import Model, folder_of, open_model


def mixture(mixture: Mixture, *, evaluate: bool = True) -> dict[str, Any]:
    """Train the tasks of a file together, and return what `result.json` holds.

    One adapter for all lies in `artifact/`; one for each in `tasks/NAME/artifact/`. With `evaluate` every task is
    measured on its own validation rows by its own metric, and forgetting once for each adapter. The shares are those of
    `data/_mix.py`. Goes on where it was interrupted. Raises Mistake as `train` does.
    """
    mixture, members = read_members(mixture)
    shared, folder = mixture.shared, folder_of(mixture.shared)
    examples = together(members)
    with recorded(mixture, "mixture", folder, examples) as record, PeakMemory() as peak:
        begun = time.monotonic()
        model = open_model(shared.model, shared.precision, quantization=shared.quantization)
        make_ready(members, model, mixture.mixing)
        base = remember(model.prepared, model.template) if evaluate else None
        adapters, tasks = list[dict[str, Any]](), list[dict[str, Any]]()
        for group in [members] if mixture.mixing.adapters == "one" else [[member] for member in members]:
            place = folder if len(group) == len(members) else folder_of_task(folder, group[0].name)
            with _learned(mixture, group, model, place, base) as learned:
                if evaluate:
                    tasks += _measured(group, model, learned, record)
                    learned.lose()
                record.left(learned.method.name, place / "artifact", model.loaded.name)
                name = learned.method.name if len(group) > 1 else group[0].name
                adapters.append({**asdict(learned.outcome), "name": name, "tasks": [one.name for one in group]})
        seconds = time.monotonic() - begun
        record.peak_memory_mb = peak.look()
        result = {
            "name": folder.name,
            "model": shared.model,
            "method": shared.method.name,
            **mixture.mixing.model_dump(mode="json"),
            "tasks": tasks or [{"name": member.name, **_about(member)} for member in members],
            "trained": adapters,
            "seconds": seconds,
            "money": shared.budget.money(seconds),
            "peak_memory_mb": record.peak_memory_mb,
            "artifact_bytes": sum(one["artifact_bytes"] for one in adapters),
            "data": {"version": examples.version, **examples.counts(), "notes": list(examples.notes)},
            "machine": inspect(torch=True).as_dict(),
            "command": f'tunesmith generate --artifact {folder} --task {members[0].name} "your text"',
        }
        _artifacts.write_json(folder / "result.json", result)
        write_mixture_report(folder, result)
        return result


def folder_of_task(folder: Path, name: str) -> Path:
    """Where the adapter of one task alone is made, a folder like that of a run."""
    place = folder / "tasks" / name
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def _learned(
    mixture: Mixture, group: Sequence[Member], model: Model, place: Path, base: Base | None
) -> Iterator[Learned]:
    """Train one adapter on the rows drawn from its tasks and keep it; afterwards the base is as it was."""
    rows = [row for member in group for row in member.drawn]
    validation = [row for member in group for row in member.validation]
    # The rows drawn are those of all epochs; budgets are for the whole run.
    minutes = mixture.shared.budget.minutes * len(group) / len(mixture.tasks)
    budget = mixture.shared.budget.model_copy(update={"minutes": minutes})
    project = group[0].project.model_copy(update={"num_train_epochs": 1.0, "budget": budget})
    learned = learn(project, model, rows, validation, place, receipt(group), base)
    try:
        task = {member.name: member.project.task for member in group}
        learned.outcome.artifact_bytes = _artifacts.save(
            place / "artifact",
            model,
            task if len(group) > 1 else group[0].project.task,
            learned.prompting,
            learned.method,
        )
        yield learned
    finally:
        learned.method.module.detach(model.loaded.model)


def _measured(group: Sequence[Member], model: Model, learned: Learned, record: Record) -> Iterator[dict[str, Any]]:
    for member in group:
        if member.examples.validation:
            told, metrics = measured(member, model, learned.prompting)
            record.measured("validation", metrics, {"task": member.name})
            yield {**told, **_about(member)}


def _about(member: Member) -> dict[str, Any]:
    """What a task is, and what its part in the mixture was."""
    return {
        "task": member.project.task.as_dict(),
        "data": {"version": member.examples.version, **member.examples.counts()},
        **{key: member.told[key] for key in ("share", "drawn", "passes")},
    }
