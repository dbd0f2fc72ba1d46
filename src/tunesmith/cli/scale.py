"""Choose how strongly an artifact takes part: as good as it must be, forgetting as little as it can."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli import _show


def command(
    artifact: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or an artifact's.")],
    factor: Annotated[float | None, typer.Option(help="This strength, by hand: above 0, at most 1.")] = None,
    max_kl: Annotated[float | None, typer.Option(help="KL from the base that may not be passed, nats a token.")] = None,
    config: Annotated[Path | None, typer.Option(help="A task file, where the artifact lies in no run.")] = None,
    task: Annotated[str | None, typer.Option(help="On whose rows, of an artifact for several tasks.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many validation rows.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where the scaled artifact goes.")] = None,
) -> None:
    """Choose how strongly an artifact takes part: as good as it must be, forgetting as little as it can.

    What was learned is tried at 1, 0.9 … 0 times its strength on the validation rows. With --max-kl the best that
    forgets no more is kept, else the weakest that is no worse beyond noise. The run's own artifact stays as it is.

    Example:

        tunesmith scale runs/movie-reviews --max-kl 0.1
        tunesmith scale runs/movie-reviews --factor 0.7
    """
    from tunesmith.core.config import load_project

    project = load_project(config) if config is not None else None

    from tunesmith.recipes.scale import scale

    told = scale(
        artifact, factor=factor, max_kl=max_kl, project=project, task_name=task, limit=limit, output_dir=output_dir
    )

    def for_people() -> None:
        rows = [
            (
                f"{'→' if one['chosen'] else ' '} {one['factor']:g}",
                _show.interval(one.get("value"), one.get("low"), one.get("high")),
                one["forgetting_kl"],
                one["forgetting_bits_per_byte"],
            )
            for one in told["factors"]
        ]
        metric = told["factors"][0].get("metric", "quality")
        _show.table(("  strength", f"{metric} [95 %]", "KL", "bits per byte"), rows)
        _show.line(told["verdict"])
        _show.line(f"report: {Path(told['artifact']).parent}/report.html")
        _show.line(f"use it: {told['command']}")

    _show.show(told, for_people)
