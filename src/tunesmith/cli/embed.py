"""Turn texts into vectors that lie near where the texts mean the same."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Precision
from tunesmith.evaluation import amounts

Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="The texts; none: a line each from stdin.")]
_SHOWN = 60


def command(
    texts: Texts = None,
    file: Annotated[str | None, typer.Option(help="A file instead: a text a line, or a column of rows.")] = None,
    column: Annotated[str | None, typer.Option(help="Which column of --file; default: looked for.")] = None,
    model: Annotated[str | None, typer.Option(help="Which model; default: all-minilm-l6-v2.")] = None,
    artifact: Annotated[str | None, typer.Option(help="A run's folder, or an adapter's, instead of a model.")] = None,
    task: Annotated[str | None, typer.Option(help="Which task, of an artifact that has several.")] = None,
    config: Annotated[Path | None, typer.Option(help="A task file, where the artifact does not say its model.")] = None,
    pooling: Annotated[
        Literal["mean", "first", "last"] | None,
        typer.Option(help="Of a text's tokens; default: as the model's files say, else mean, of a decoder last."),
    ] = None,
    layer: Annotated[int, typer.Option(help="After which layer: from 1, or back from -1, the last.")] = -1,
    normalize: Annotated[bool, typer.Option(help="Bring every vector to length 1.")] = True,
    output: Annotated[Path | None, typer.Option(help="Write the vectors: .npy, .safetensors or .jsonl.")] = None,
    precision: Precision = None,
) -> None:
    """Turn texts into vectors that lie near where the texts mean the same.

    Up to twelve texts are compared with each other. With --json the vectors are printed, unless --output takes them.

    Example:

        tunesmith embed "a cat sits on the mat" "a kitten rests on a rug" "the stock market fell"
        tunesmith embed --file reviews.csv --column review --output vectors.npy
        tunesmith embed --artifact runs/movie-reviews --file texts.txt --output vectors.safetensors
    """
    from tunesmith.core.config import load_project
    from tunesmith.core.errors import Mistake

    if texts and file is not None:
        raise Mistake("embed: got texts and --file; expected one of them")
    if column is not None and file is None:
        raise Mistake("embed: got --column without --file; expected the file it is a column of")
    project = load_project(config) if config is not None else None

    from tunesmith.recipes._vectors import read_texts
    from tunesmith.recipes.embed import embed

    given = read_texts(file, column) if file is not None else list(texts or ()) or _typed()
    told = embed(
        given,
        model=model,
        artifact=artifact,
        project=project,
        task_name=task,
        pooling=pooling,
        layer=layer,
        normalize=normalize,
        precision=precision,
        output=output,
    )
    printed = {key: value for key, value in told.items() if key != "vectors" or output is None}
    _show.show(printed, lambda: _print(told, given))


def _print(told: dict[str, Any], given: Sequence[str]) -> None:
    if told["cosine_similarities"] is not None:
        numbers = [str(number) for number in range(1, len(given) + 1)]
        rows = zip(numbers, given, told["cosine_similarities"], strict=True)
        _show.table(
            ("", "cosine similarity", *numbers),
            [(number, _short(text), *map(amounts.quality, cosines)) for number, text, cosines in rows],
        )
    _show.facts(
        (
            ("vectors", f"{told['texts']:,} of {told['dimension']:,} numbers"),
            ("model", told["model"] + (f" with {told['artifact']}" if told["artifact"] else "")),
            ("pooling", f"{told['pooling']} of {_layer(told['layer'])}" + ", length 1" * told["normalize"]),
            ("cut", f"{told['cut']:,} longer than {told['max_length']:,} tokens" if told["cut"] else None),
            ("time", f"{amounts.duration(told['seconds'])}, {amounts.duration(told['seconds_per_text'])} a text"),
            ("peak memory", amounts.memory(told["peak_memory_mb"])),
            ("written to", told["output"]),
        )
    )


def _typed() -> list[str]:
    from tunesmith.core.errors import Mistake
    from tunesmith.recipes._vectors import texts_of_lines

    try:
        return texts_of_lines(sys.stdin.read(), "stdin")
    except UnicodeDecodeError as error:
        where = f"stdin: byte {error.start + 1} is not {error.encoding}"
        raise Mistake(f"{where}; expected text in it; convert it first") from None


def _layer(layer: int) -> str:
    return "the last layer" if layer == -1 else f"layer {layer}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
