"""Measure a prompt or an artifact on the test rows, with intervals and prices."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Config, Overrides
from tunesmith.evaluation import amounts


class Split(StrEnum):
    """Which rows."""

    test = "test"
    validation = "validation"


class How(StrEnum):
    """Which examples are put into the prompt."""

    random = "random"
    balanced = "balanced"
    similar = "similar"


class Calibrate(StrEnum):
    """How a prompt's leaning is taken out of the labels' probabilities."""

    none = "none"
    contextual = "contextual"
    batch = "batch"


def command(
    config: Config,
    overrides: Overrides,
    artifact: Annotated[str | None, typer.Option(help="A run's folder, or an adapter's.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples put into the prompt.")] = None,
    how: Annotated[How, typer.Option(help="How the examples are picked.")] = How.balanced,
    calibrate: Annotated[Calibrate, typer.Option(help="Calibration of label probabilities.")] = Calibrate.none,
    split: Annotated[Split, typer.Option(help="The rows to answer.")] = Split.test,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many rows.")] = None,
) -> None:
    """Measure a prompt or an artifact on the test rows, with intervals and prices.

    Example:

        tunesmith evaluate task.yaml --shots 4 --how similar
        tunesmith evaluate task.yaml --artifact runs/movie-reviews
        tunesmith evaluate tasks.yaml --task tweets --artifact runs/several
    """
    from tunesmith.core.config import load_project

    project = load_project(config, {**overrides, **({} if shots is None else {"shots": shots})})

    from tunesmith.recipes.evaluate import evaluate

    result = evaluate(
        project,
        artifact=artifact,
        split=split.value,
        how=how.value,
        calibrate=calibrate.value,
        limit=limit,
        task_name=overrides.get("task"),
    )

    def for_people() -> None:
        rows = [
            (one["metric"], _show.interval(one["value"], one["low"], one["high"]), one["n"])
            for one in result["metrics"].values()
        ]
        _show.table(("metric", "value [95 %]", "rows"), rows)
        _show.facts(
            (
                ("tokens in a prompt", result["prompt_tokens_per_query"]),
                ("seconds a query", result["seconds_per_query"]),
                ("peak memory", amounts.memory(result["peak_memory_mb"])),
                ("caution", result["caution"] or None),
            )
        )

    _show.show(result, for_people)
