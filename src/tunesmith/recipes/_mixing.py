"""The tasks of a mixture made ready: their rows as tokens, how many of each are taken, and what came of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake
from tunesmith.core.mixture import Mixing, Mixture
from tunesmith.core.records import Encoded
from tunesmith.core.seed import derive
from tunesmith.data import _mix
from tunesmith.data._version import data_version
from tunesmith.evaluation.answers import Prompting
from tunesmith.recipes._bench import LOSS_TOKENS, encode_training, encode_validation
from tunesmith.recipes._outcome import Outcome
from tunesmith.recipes._race import within
from tunesmith.recipes._work import Examples, Model, need, read_examples


@dataclass(slots=True)
class Member:
    """One task of a mixture. `drawn` are the rows it is trained on, in passes over all of its own."""

    name: str
    project: Project
    examples: Examples
    rows: Sequence[Encoded] = ()
    validation: Sequence[Encoded] = ()
    drawn: Sequence[Encoded] = ()
    told: dict[str, Any] = field(default_factory=dict)


def read_members(mixture: Mixture) -> tuple[Mixture, list[Member]]:
    """Read every task's data; the mixture comes back with the labels that were found.

    Raises Mistake as `read_examples` does, and for a method that is a head for the labels of one task.
    """
    method = mixture.shared.method
    if getattr(method.module, "HEAD", False):
        raise Mistake(f"method: {method.name} is a head for one task, not several; type --method.name lora")
    members = [Member(name, *read_examples(project)) for name, project in mixture.tasks.items()]
    for member in members:
        need(member.examples.train, "train")
    return mixture.with_tasks({member.name: member.project for member in members}), members


def together(members: Sequence[Member]) -> Examples:
    """The rows of all tasks, as one set of data with one version."""
    splits = (
        tuple(row for member in members for row in getattr(member.examples, name))
        for name in ("train", "validation", "test")
    )
    train, validation, test = splits
    notes = tuple(f"{member.name}: {note}" for member in members for note in member.examples.notes)
    return Examples(train, validation, test, notes, data_version([*train, *validation, *test]))


def make_ready(members: Sequence[Member], model: Model, mixing: Mixing) -> None:
    """Encode each task's rows, and take as many of them as its share of the mixture says.

    A pass over the mixture has as many rows as the tasks count for, together; `num_train_epochs` of these are made, or
    what `max_steps` is enough for.
    """
    for member in members:
        member.rows, member.told = encode_training(member.project, model, member.examples.train)
        loss_rows = encode_validation(member.project, model, member.examples)
        member.validation = within(loss_rows, LOSS_TOKENS // len(members))
    sizes = {member.name: len(member.rows) for member in members}
    parts = _mix.shares(sizes, mixing.mixture, mixing.temperature, mixing.size_limit)
    total = _rows_taken(members[0].project, sum(_mix.counted(size, mixing.size_limit) for size in sizes.values()))
    counts = _mix.counts(parts, total)
    for member in members:
        seed = derive(member.project.seed, "mixture", member.name)
        member.drawn = _mix.drawn(member.rows, counts[member.name], seed)
        passes = round(len(member.drawn) / len(member.rows), 3)
        member.told |= {"rows": len(member.rows), "drawn": len(member.drawn), "passes": passes}
        member.told["share"] = round(parts[member.name], 4)


def receipt(members: Sequence[Member]) -> dict[str, Any]:
    """What the receipt of a training on several tasks says of them, one by one and together."""
    lost = {key: sum(member.told[key] for member in members) for key in ("rows_dropped", "rows_truncated")}
    return {**lost, "tasks": {member.name: member.told for member in members}}


def measured(member: Member, model: Model, prompting: Prompting) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The task's own validation rows answered and judged: what the result says of it, and its measurements."""
    task, rows = member.project.task, member.examples.validation
    answers = model.answerer(task).answer(rows, prompting, member.name)
    outcome = Outcome(member.name)
    outcome.measured(answers, rows, task)
    return asdict(outcome), answers.metrics


def _rows_taken(project: Project, a_pass: int) -> int:
    total = max(1, math.ceil(project.num_train_epochs * a_pass))
    a_step = project.per_device_train_batch_size * project.gradient_accumulation_steps
    return total if project.max_steps is None else min(total, project.max_steps * a_step)
