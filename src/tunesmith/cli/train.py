"""Train one rung by hand, or several tasks together; goes on where it was interrupted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Config, Overrides
from tunesmith.evaluation import amounts


def command(
    config: Config,
    overrides: Overrides,
    evaluate: Annotated[
        bool, typer.Option(help="Answer the validation rows and measure forgetting afterwards.")
    ] = True,
) -> None:
    """Train one rung by hand, or the several tasks of a file together; goes on where it was interrupted.

    Leaves config.yaml, receipt.json, metrics.jsonl, checkpoints, the artifact, result.json and report.html in
    output_dir.

    Example:

        tunesmith train task.yaml --method.name lora --method.r 8 --output-dir runs/lora-8
        tunesmith train tasks.yaml --mixture temperature --adapters one
    """
    from tunesmith.core.config import Project
    from tunesmith.core.mixture import load

    asked = load(config, overrides)
    folder = asked.output_dir if isinstance(asked, Project) else asked.shared.output_dir
    try:
        if isinstance(asked, Project):
            from tunesmith.recipes.train import train

            result = train(asked, evaluate=evaluate)
            _show.show(result, lambda: _tell_run(result, folder))
        else:
            from tunesmith.recipes.mixture import mixture

            result = mixture(asked, evaluate=evaluate)
            _show.show(result, lambda: _tell_tasks(result, folder))
    except KeyboardInterrupt:
        kept = f"a checkpoint is kept in {folder}; type the same command again to go on"
        raise KeyboardInterrupt(kept) from None


def _tell_run(result: dict[str, Any], folder: str) -> None:
    quality = _show.interval(result["value"], result["low"], result["high"])
    _show.facts(
        (
            (result["metric"] or "metric", f"{quality} on {result['n']} validation rows" if result["n"] else None),
            ("training", f"{amounts.duration(result['train_seconds'])}, {result['config']['steps']} steps"),
            ("peak memory", amounts.memory(result["peak_memory_mb"])),
            ("trained", f"{result['trainable_parameters']:,} numbers"),
            ("artifact", f"{folder}/artifact ({amounts.size(result['artifact_bytes'])})"),
            (
                "forgetting",
                None if result["forgetting_kl"] is None else f"KL {result['forgetting_kl']:.4f} nats a token",
            ),
            (
                "drift",
                None if result["forgetting_drift"] is None else f"{result['forgetting_drift']:.4f} (1 - cosine)",
            ),
            ("note", result["reason"] or result["caution"] or None),
            ("use it", result["command"]),
        )
    )


def _tell_tasks(result: dict[str, Any], folder: str) -> None:
    _show.table(
        ("task", "metric", "value [95 %]", "rows", "share", "passes"),
        (
            (
                one["name"],
                (one.get("metric") or "–").replace("_", " "),
                _show.interval(one.get("value"), one.get("low"), one.get("high")),
                one.get("n"),
                one["share"],
                one["passes"],
            )
            for one in result["tasks"]
        ),
    )
    kept = [(one["name"], one["forgetting_kl"]) for one in result["trained"] if one["forgetting_kl"] is not None]
    cautions = [f"{one['name']}: {one['caution']}" for one in result["tasks"] if one.get("caution")]
    _show.facts(
        (
            ("took", amounts.duration(result["seconds"])),
            ("peak memory", amounts.memory(result["peak_memory_mb"])),
            *((f"forgetting of {name}", f"KL {kl:.4f} nats a token") for name, kl in kept),
            ("caution", "\n".join(cautions) or None),
            ("report", f"{folder}/report.html"),
            ("use it", result["command"]),
        )
    )
