"""What embeds: a model without a head, or an artifact on its base with the head left out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tunesmith.core.config import Precision, Project, choose
from tunesmith.core.errors import Mistake
from tunesmith.core.progress import say
from tunesmith.recipes import _artifacts
from tunesmith.recipes._work import Model, open_model

MODEL = "all-minilm-l6-v2"
"""The model that is taken where none is asked for."""


class Body(NamedTuple):
    """A model, the virtual tokens before every row, and the method of the artifact that lies on it."""

    model: Model
    prefix: tuple[int, ...] = ()
    method: str | None = None


def open_body(
    model: str | None,
    artifact: str | Path | None,
    project: Project | None,
    task_name: str | None,
    precision: Precision | None,
) -> Body:
    """A plain model without a head, or an artifact on its base. Raises Mistake for both at once."""
    if model is not None and artifact is not None:
        raise Mistake("embed: got --model and --artifact; expected one of them: an artifact knows its model")
    precision = precision or (project.precision if project else "auto")
    if artifact is None:
        name, stored = model or (project.model if project else MODEL), project.quantization if project else None
        text = choose("tasks", "language_modelling")
        return Body(open_model(name, precision, text, quantization=stored, reads="body"))
    from tunesmith.methods._attachment import attached
    from tunesmith.methods._label_head import head_of

    opened, _, prompting = _artifacts.open_artifact(_artifacts.find(artifact, task_name), project, precision, task_name)
    there = attached(opened.loaded.model)
    if there is None or head_of(opened.loaded.model) is not None:
        say(f"{artifact}: changed nothing below its head; the vectors are those of {opened.loaded.name}")
    return Body(opened, prompting.prefix, there.method if there else None)
