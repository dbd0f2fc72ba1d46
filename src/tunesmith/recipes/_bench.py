"""Setting up what all rungs are tried with: the model made ready, the rows encoded, the base remembered."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.config import Project, choose
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import say
from tunesmith.core.records import Encoded, Text
from tunesmith.evaluation.answers import Answerer
from tunesmith.evaluation.forgetting import remember
from tunesmith.evaluation.reader_answers import ReaderAnswerer
from tunesmith.models.load import context_length
from tunesmith.prompts.budget import Cut, cut
from tunesmith.prompts.documents import documents
from tunesmith.prompts.passages import passages
from tunesmith.prompts.reading import Reader
from tunesmith.recipes._artifacts import write_json
from tunesmith.recipes._forgetting import Restraint, restrain
from tunesmith.recipes._objective import with_objective
from tunesmith.recipes._race import within
from tunesmith.recipes._rungs import Bench
from tunesmith.recipes._work import Examples, Model, model_of, need, need_memory
from tunesmith.tasks import _balance

MEASURED_SHARE = 0.05
"""Share of a climb's time that measuring one rung on the validation rows may take."""
FEWEST_ROWS = 60
LOSS_ROWS, LOSS_TOKENS = 512, 8192
"""Validation rows, and tokens of them, on which the loss is followed during training: it is measured many times, and
few rows would pick weights by chance."""


def open_bench(project: Project, examples: Examples, folder: Path, seconds: float) -> Bench:
    """Load the model, encode the rows, remember the base, and choose how many rows the time allows to measure on.

    The numbers of rows are written down in `folder`, so that a climb that goes on measures on the same ones.
    """
    need(examples.train, "train")
    need(examples.validation, "validation")
    model = model_of(project)
    need_memory(project)
    project = with_objective(project, model)
    encoded, lost = encode_training(project, model, examples.train)
    encoded_validation = encode_validation(project, model, examples)
    begun = time.monotonic()
    base = remember(model.prepared, model.template) if model.reader is None else None
    restraint = restrain(project, model, len(encoded), base)
    rows = _rows(model.answerer(project.task, project.objective), examples, folder, seconds)
    return Bench(
        project,
        model,
        examples,
        examples.validation[:rows],
        [*encoded, *restraint.rows],
        encoded_validation,
        {**lost, "replayed_rows": len(restraint.rows)},
        restraint,
        forgetting_seconds=time.monotonic() - begun,
    )


def read_as(bench: Bench, name: str) -> Bench:
    """The bench as the method `name` uses it: rows are read where it labels them with a head of its own."""
    own = bench.project.method
    model = bench.model.reading(own if own.name == name else choose("methods", name), bench.project.task)
    if model is bench.model:
        return bench
    encoded, lost = encode_training(bench.project, model, bench.examples.train)
    validation = encode_validation(bench.project, model, bench.examples)
    free = Restraint(bench.project, model)  # a body that does not change needs no holding
    return replace(bench, model=model, encoded=encoded, encoded_validation=validation, cut=lost, restraint=free)


def encode(project: Project, model: Model, records: Sequence[Any]) -> tuple[list[Encoded], dict[str, int]]:
    """Rows as tokens to be trained on, the too long ones treated as `too_long` says; and how many those were.

    Raises Mistake when none is left.
    """
    kept = _cut(project, model, records)
    return list(kept.rows), {"rows_dropped": kept.dropped, "rows_truncated": kept.truncated}


def encode_training(project: Project, model: Model, records: Sequence[Any]) -> tuple[list[Encoded], dict[str, Any]]:
    """`encode` for the rows to learn from: those of rare labels weigh more or come several times, as the task asks.

    What is told besides are the rows of each label, their weights, and how many rows were added.
    """
    kept, (module, config) = _cut(project, model, records), (project.task.module, project.task.config)
    told: dict[str, Any] = {"rows_dropped": kept.dropped, "rows_truncated": kept.truncated}
    if not hasattr(module, "classes"):
        return list(kept.rows), told
    classes, rows = [module.classes(record, config) for record in kept.records], list(kept.rows)
    told["rows_by_label"] = _balance.counts(classes)
    if config.class_weights != "none":
        told["class_weights"] = _balance.class_weights(classes, config.class_weights)
        factors = _balance.row_weights(classes, config.class_weights)
        rows = [_weighted(row, factor) for row, factor in zip(rows, factors, strict=True)]
    if config.sampling == "balanced":
        times = _balance.repeats(classes)
        told["rows_repeated"] = sum(times) - len(rows)
        rows = [row for row, count in zip(rows, times, strict=True) for _ in range(count)]
    return rows, told


def _weighted(row: Encoded, factor: float) -> Encoded:
    return replace(row, weights=tuple(factor * weight for weight in row.weights))


def _cut(project: Project, model: Model, records: Sequence[Any]) -> Cut:
    """The rows as tokens, none longer than the model's context and `max_length`. Raises Mistake when none is left."""
    module, config = project.task.module, project.task.config
    length = min(project.max_length, context_length(model.loaded.model.config))
    if module.RECORD is Text:
        texts = [record.text for record in records]
        if model.reader is not None:
            rows = passages(model.reader, texts, max_length=length, seed=project.seed)
        else:
            rows = documents(model.template, texts, max_length=length)
        return Cut(tuple(row for document in rows for row in document), tuple(records))
    if model.reader is not None:
        return _labelled(project, model.reader, records)
    kept = cut(
        records,
        lambda record: module.conversation(record, config),
        model.template,
        max_length=length,
        policy=project.too_long,
    )
    if records and not kept.rows:
        which = "max_length" if length == project.max_length else "the model's context"
        longer = "raise max_length" if length == project.max_length else "choose a model that sees more"
        advice = "shorten the instruction" if project.too_long == "truncate" else "type --too-long truncate"
        raise Mistake(f"no row fits into {length:,} tokens ({which}); {longer}, or {advice}")
    return kept


def _labelled(project: Project, reader: Reader, records: Sequence[Any]) -> Cut:
    """Rows for a head, with their labels. Raises Mistake when none is left."""
    module, config = project.task.module, project.task.config
    wanted = [module.wanted(record, config) for record in records]
    kept = reader.rows(records, wanted, max_length=project.max_length, policy=project.too_long)
    if records and not kept.rows:
        raise Mistake("no row could be labelled; expected rows that fit max_length, with their answers word for word")
    return kept


def encode_validation(project: Project, model: Model, examples: Examples) -> list[Encoded]:
    """The validation rows, as tokens, on which the loss is followed during training."""
    rows, _ = encode(project, model, examples.validation[:LOSS_ROWS])
    return within(rows, LOSS_TOKENS)


def _rows(answerer: Answerer | ReaderAnswerer, examples: Examples, folder: Path, seconds: float) -> int:
    """How many validation rows each measurement takes, from how long the first few take."""
    kept = folder / "rows.json"
    if kept.exists():
        return int(json.loads(kept.read_text(encoding="utf-8"))["validation"])
    probe = examples.validation[:16]
    answerer.answer(probe[:4], description="warming up")
    per_row = answerer.answer(probe, description="measuring speed").seconds_per_query
    count = min(max(FEWEST_ROWS, int(MEASURED_SHARE * seconds / per_row)), len(examples.validation))
    if count < len(examples.validation):
        say(f"validation: {count} of {len(examples.validation)} rows are measured on, as the time allows")
    write_json(kept, {"validation": count})
    return count
