"""Make an adapter part of its base's weights: a plain model comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Precision


def command(
    artifact: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or an artifact's.")],
    config: Annotated[Path | None, typer.Option(help="A task file, where the artifact does not say its model.")] = None,
    precision: Precision = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where the merged model goes.")] = None,
) -> None:
    """Make an adapter part of its base's weights: a plain model comes out, which loads anywhere.

    An adapter of a quantized base is merged into exactly the numbers it was trained on. How far the merged model's
    logits lie from the adapted one's is told.

    Example:

        tunesmith merge runs/movie-reviews
        tunesmith merge runs/movie-reviews --output-dir models/mine --precision float32
    """
    from tunesmith.core.config import load_project

    project = load_project(config) if config is not None else None

    from tunesmith.recipes.merge import merge

    told = merge(artifact, project=project, precision=precision or "auto", output_dir=output_dir)

    def for_people() -> None:
        stored = f", stored in {told['base_quantization']}" if told["base_quantization"] else ""
        _show.line(f"{told['method']} is part of {told['base']}{stored} now: {told['model']} ({told['dtype']})")
        _show.line(
            f"logits differ by {told['mean_logit_difference']:.2g} on average, {told['largest_logit_difference']:.2g} "
            f"at most; the likeliest token is the same for {told['same_likeliest_token']:.0%} of "
            f"{told['prompts']} prompts"
        )
        _show.line(f"use it: {told['command']}")

    _show.show(told, for_people)
