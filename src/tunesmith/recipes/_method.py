"""The method a run trains, with what only the tokenizer, the task and the data know filled in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.config import Chosen, Project, choose
from tunesmith.core.records import Encoded
from tunesmith.engine.survey import Look
from tunesmith.recipes._artifacts import write_json
from tunesmith.recipes._work import Model

_KEPT = "survey.json"


def settled(method: Chosen, project: Project, model: Model, rows: Sequence[Encoded], folder: Path) -> Chosen:
    """The method ready to be attached to the plain base.

    What a method found by looking at the data is kept in `folder`, so that a run that goes on trains the same weights
    without looking again.
    """
    method = _resolved(method, project, model)
    if not hasattr(method.module, "survey"):
        return method
    asked, kept = _digest(method, project, model, rows), folder / _KEPT
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if found.get("asked") != asked:
        look = Look(model.prepared, rows, project.seed)
        config = method.module.survey(model.loaded.model, method.config, look)
        found = {"asked": asked, "config": config.model_dump(mode="json")}
        write_json(kept, found)
    return choose(method.room, method.name, **found["config"])


def _resolved(method: Chosen, project: Project, model: Model) -> Chosen:
    if not hasattr(method.module, "resolve"):
        return method
    instruction = getattr(project.task.config, "instruction", "")
    return Chosen(method.room, method.name, method.module.resolve(method.config, model.loaded.tokenizer, instruction))


def _digest(method: Chosen, project: Project, model: Model, rows: Sequence[Encoded]) -> str:
    """What the finding follows from, in short."""
    told: list[Any] = [method.as_dict(), project.seed, project.precision, project.quantization, model.loaded.identity]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for row in rows:
        digest.update(repr((row.ids, row.weights, row.labels)).encode())
    return digest.hexdigest()
