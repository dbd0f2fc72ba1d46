"""Check: what is in the data and what is wrong with it, counted in the model's own tokens; no model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import say
from tunesmith.core.records import Record, Text
from tunesmith.data._check import Measure
from tunesmith.data._check import check as look_at
from tunesmith.data._findings import Finding
from tunesmith.data._read import complaints
from tunesmith.models.load import context_length, load_tokenizer
from tunesmith.models.source import check_name, find
from tunesmith.prompts.documents import form_of
from tunesmith.prompts.render import Template
from tunesmith.recipes._work import read_examples

SPLITS = ("train", "validation", "test")


def check(project: Project) -> dict[str, Any]:
    """Read all of the data and return what `data/_check.py` finds in it, as plain values, `findings` the gravest first.

    Bad rows are collected, not raised: `bad_rows` are the lines of complaint about them. A row's tokens are those it
    is trained on, prompt and template included; where the model is not on this machine, words are counted, and
    `notes` say so. Raises Mistake when a file cannot be read at all.
    """
    check_name(project.model)
    project, examples = read_examples(project, collect_problems=True)
    measure, context, why = _ruler(project)
    if why:
        say(why)
    limit = project.max_length if context is None else min(project.max_length, context)
    report = look_at(
        {name: rows for name in SPLITS if (rows := getattr(examples, name))},
        labels=getattr(project.task.config, "labels", None),
        problems=examples.problems,
        notes=[*examples.notes, *([why] if why else [])],
        measure=measure,
        max_length=limit,
    )
    if limit < project.max_length:
        says = f"max_length ({project.max_length:,}) is more than the model's context of {limit:,} tokens"
        beyond = Finding("caution", says, f"write `max_length: {limit}`, or choose a model that sees more")
        grave = [finding for finding in report.findings if finding.severity == "problem"]
        report = dataclasses.replace(report, findings=(*grave, beyond, *report.findings[len(grave) :]))
    return {
        "task": project.task.name,
        "model": project.model,
        **report.as_dict(),
        "bad_rows": complaints(examples.problems),
    }


def _ruler(project: Project) -> tuple[Measure | None, int | None, str]:
    """What counts a row's tokens, and how many the model can see; or neither, and why."""
    task, folder = project.task, find(project.model)
    if task.module.RECORD is Text:
        return None, None, "documents are cut into rows of max_length tokens, and nothing of them is lost"
    if folder is None:
        pull = f"type `tunesmith models pull {project.model}` to count tokens"
        return None, None, f"{project.model} is not on this machine yet, so lengths are in words; {pull}"
    from transformers import AutoConfig

    config: Any = AutoConfig
    shape = config.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    context = context_length(shape)
    try:
        form = form_of(task.module.RECORD, shape.is_encoder_decoder)
        template = Template(load_tokenizer(project.model, offline=True), form=form)
    except Mistake as mistake:
        return None, context, f"{mistake}; so lengths are in words"

    def measure(rows: Sequence[Record]) -> list[int]:
        conversations = (task.module.conversation(row, task.config) for row in rows)
        return [len(one.ids) for one in template.conversations(conversations)]

    return measure, context, ""
