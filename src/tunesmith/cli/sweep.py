"""Search the keys of a task file for the values that learn best."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Config, Overrides


def command(
    config: Config,
    overrides: Overrides,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those found in the folder included.")] = 20,
    minutes: Annotated[float | None, typer.Option(min=0, help="Minutes for this worker, else the budget's.")] = None,
    objectives: Annotated[str, typer.Option(help="What counts: quality, seconds, forgetting.")] = "quality",
) -> None:
    """Search the keys of a task file for the values that learn best.

    Each trial trains afresh and is judged by its loss on the validation rows; bad ones are ended early. What is
    searched stands under `sweep` in the task file (`learning_rate: [1.0e-5, 1.0e-3]`, `method.r: [4, 8, 16]`), else it
    is what suits the method. The same command typed again goes on; typed in two terminals, both work on one study.

    Example:

        tunesmith sweep task.yaml --trials 20 --minutes 60
        tunesmith sweep task.yaml --objectives quality,seconds,forgetting
    """
    from tunesmith.core.config import load_project

    project = load_project(config, overrides)

    from tunesmith.recipes.sweep import sweep

    try:
        told = sweep(project, trials=trials, minutes=minutes, objectives=tuple(objectives.split(",")))
    except KeyboardInterrupt:
        kept = f"finished trials are kept in {project.output_dir}; type the same command again to go on"
        raise KeyboardInterrupt(kept) from None

    def for_people() -> None:
        keys = [one["key"] for one in told["search"]]
        rows = [
            (
                f"{'→' if trial['chosen'] else ' '} {trial['number']}",
                *(trial["params"][key] for key in keys),
                *(trial["values"].get(name) for name in told["objectives"]),
                trial["state"],
            )
            for trial in told["trials"]
        ]
        _show.table(("  trial", *keys, *told["objectives"], "state"), rows)
        for key, share in told["importances"].items():
            _show.line(f"{key} explains {share:.0%}")
        _show.line(f"report: {project.output_dir}/report.html")
        _show.line(f"use it: {told['command']}")

    _show.show(told, for_people)
