"""Try the rungs from cheap to dear on your data, and keep the cheapest that is as good as the best."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Config, Overrides


def command(
    config: Config,
    overrides: Overrides,
    rungs: Annotated[str | None, typer.Option(help="Only these rungs, e.g. zero_shot,few_shot,lora.")] = None,
    target: Annotated[float | None, typer.Option(help="Stop when the metric's interval lies above this.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock minutes for all of it.")] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Peak memory allowed.")] = None,
) -> None:
    """Try the rungs from cheap to dear on your data, and keep the cheapest that is as good as the best.

    Prompts come first (zero_shot, few_shot), then methods that train more and more of the model. Every rung is
    measured on the same validation rows, with a confidence interval and its price; the winner once more on test rows.
    Interrupted, it keeps every finished rung and goes on when the same command is typed again.

    Example:

        tunesmith climb task.yaml --minutes 20 --rungs zero_shot,few_shot,lora
    """
    from tunesmith.core.config import load_project

    own = {
        "rungs": rungs.split(",") if rungs else None,
        "target": target,
        "budget.minutes": minutes,
        "budget.memory_gb": memory_gb,
    }
    project = load_project(config, {**overrides, **{key: value for key, value in own.items() if value is not None}})

    from tunesmith.evaluation.report import table
    from tunesmith.recipes.climb import climb

    try:
        told = climb(project)
    except KeyboardInterrupt:
        kept = f"finished rungs are kept in {project.output_dir}; type the same command again to go on"
        raise KeyboardInterrupt(kept) from None

    def for_people() -> None:
        _show.rich(table(told))
        _show.line(told["verdict"])
        _show.line(f"report: {project.output_dir}/report.html")
        _show.line(f"use it: {told['command']}")

    _show.show(told, for_people)
