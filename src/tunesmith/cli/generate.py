"""Answer a text with a model or an artifact."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Precision

Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="The texts; none: a line each from stdin.")]


def command(
    texts: Texts = None,
    artifact: Annotated[str | None, typer.Option(help="A run's folder, or an adapter's.")] = None,
    model: Annotated[str | None, typer.Option(help="A plain model instead of an artifact.")] = None,
    task: Annotated[str | None, typer.Option(help="Which task, of an artifact that has several.")] = None,
    config: Annotated[Path | None, typer.Option(help="A task file, where the artifact does not say its task.")] = None,
    precision: Precision = None,
) -> None:
    """Answer a text with a model or an artifact.

    Example:

        tunesmith generate --artifact runs/movie-reviews "A film to remember."
        tunesmith generate --artifact runs/several --task tweets "what a day"
        cat reviews.txt | tunesmith generate --artifact runs/movie-reviews --json
    """
    from tunesmith.core.config import load_project
    from tunesmith.core.errors import Mistake

    project = load_project(config) if config is not None else None
    lines = list(texts or ()) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not lines:
        raise Mistake('generate: got no text; expected one or more, e.g. tunesmith generate --artifact runs/x "text"')
    if artifact is None and model is None and project is None:
        raise Mistake(
            "generate: got neither --artifact nor --model; expected one; type `tunesmith runs list` to see artifacts"
        )

    from tunesmith.recipes.generate import speaker

    speaking = speaker(artifact=artifact, model=model, project=project, task_name=task, precision=precision)
    answers = speaking.answer(lines)

    def for_people() -> None:
        for answer in answers:
            share = answer.get("probabilities", {}).get(answer["output"])
            _show.line(answer["output"] if share is None else f"{answer['output']} ({share:.0%})")

    _show.show(answers, for_people)
