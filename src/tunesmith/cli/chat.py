"""Talk with a model or an artifact."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Precision
from tunesmith.core import progress


def command(
    artifact: Annotated[str | None, typer.Option(help="A run's folder, or an adapter's.")] = None,
    model: Annotated[str | None, typer.Option(help="A plain model instead of an artifact.")] = None,
    task: Annotated[str | None, typer.Option(help="Which task, of an artifact that has several.")] = None,
    system: Annotated[
        str,
        typer.Option(help="What the model is told first; default: its task's system prompt."),
    ] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens a reply may have.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 answers alike every time.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Only the likeliest tokens of this mass.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Makes replies repeatable.")] = 0,
    precision: Precision = None,
) -> None:
    """Talk with a model or an artifact. An empty line or ctrl-D ends it.

    Example:

        tunesmith chat --model smollm2-135m-instruct
    """
    from tunesmith.core.records import Message
    from tunesmith.recipes.generate import speaker

    speaking = speaker(artifact=artifact, model=model, task_name=task, precision=precision)
    turns = [Message("system", system)] if system else []
    progress.say("an empty line or ctrl-D ends the conversation")
    heard: list[dict[str, str]] = []
    while (text := _read()) != "":
        turns.append(Message("user", text))
        reply = speaking.reply(
            turns,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed + len(turns),
            on_text=_show.stream,
        )
        _show.stream("\n")
        turns.append(Message("assistant", reply))
        heard.append({"user": text, "assistant": reply})
    _show.show(heard, lambda: None)


def _read() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
