"""Make a model from nothing: a tokenizer and a small Llama, trained on your own texts."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Overrides
from tunesmith.evaluation import amounts


def command(
    data: Annotated[
        list[str],
        typer.Argument(help="Text files, or any source with a column of texts.", show_default=False),
    ],
    overrides: Overrides,
    shape: Annotated[str, typer.Option(help="How large: tiny (1 M), mini (5 M), small (25 M), base (116 M).")] = "mini",
    vocab_size: Annotated[
        int | None, typer.Option(help="Tokens of the vocabulary; default: what suits the shape.")
    ] = None,
) -> None:
    """Make a model from nothing: a tokenizer and a small Llama, trained on your own texts.

    Goes on where it was interrupted. Any key of a task file can follow. The model lies in output_dir/artifact, a folder
    that `model:` of a task file takes.

    Example:

        tunesmith pretrain stories.txt --shape tiny --num-train-epochs 2 --budget.minutes 60 --output-dir runs/tiny
        tunesmith generate --model runs/tiny/artifact "Once upon a time"
    """
    from tunesmith.recipes.pretrain import pretrain

    path = data[0] if len(data) == 1 else data
    try:
        result = pretrain(path, shape=shape, vocab_size=vocab_size, overrides=overrides)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what is done is kept; type the same command again to go on") from None

    def for_people() -> None:
        facts = [
            (name, f"{before['value']:.3f} at first, now {_show.interval(now['value'], now['low'], now['high'])}")
            for name, before in (result["before"] or {}).items()
            for now in [result["metrics"][name]]
        ]
        _show.facts(
            (
                *facts,
                ("training", f"{amounts.duration(result['train_seconds'])}, {result['config']['steps']} steps"),
                ("peak memory", amounts.memory(result["peak_memory_mb"])),
                ("trained", f"{result['trainable_parameters']:,} numbers"),
                ("note", result["reason"] or result["caution"] or None),
                ("use it", result["command"]),
            )
        )

    _show.show(result, for_people)
