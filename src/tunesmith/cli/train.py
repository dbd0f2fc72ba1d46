"""Train one rung by hand; goes on where it was interrupted."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Config, Overrides


def command(
    config: Config,
    overrides: Overrides,
    evaluate: Annotated[
        bool, typer.Option(help="Answer the validation rows and measure forgetting afterwards.")
    ] = True,
) -> None:
    """Train one rung by hand; goes on where it was interrupted.

    Leaves config.yaml, receipt.json, metrics.jsonl, checkpoints, the artifact, result.json and report.html in
    output_dir.

    Example:

        tunesmith train task.yaml --method.name lora --method.r 8 --output-dir runs/lora-8
    """
    from tunesmith.core.config import load_project

    project = load_project(config, overrides)

    from tunesmith.recipes.train import train

    try:
        result = train(project, evaluate=evaluate)
    except KeyboardInterrupt:
        kept = f"a checkpoint is kept in {project.output_dir}; type the same command again to go on"
        raise KeyboardInterrupt(kept) from None

    def for_people() -> None:
        quality = _show.interval(result["value"], result["low"], result["high"])
        _show.facts(
            (
                (result["metric"] or "metric", f"{quality} on {result['n']} validation rows" if result["n"] else None),
                ("training", f"{_show.duration(result['train_seconds'])}, {result['config']['steps']} steps"),
                ("peak memory", _show.megabytes(result["peak_memory_mb"] * 1e6)),
                ("trained", f"{result['trainable_parameters']:,} numbers"),
                ("artifact", f"{project.output_dir}/artifact ({_show.megabytes(result['artifact_bytes'])})"),
                (
                    "forgetting",
                    None if result["forgetting_kl"] is None else f"KL {result['forgetting_kl']:.4f} nats a token",
                ),
                ("note", result["reason"] or result["caution"] or None),
                ("use it", result["command"]),
            )
        )

    _show.show(result, for_people)
