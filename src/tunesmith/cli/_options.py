"""What every command's options have in common, and how `--key value` reaches the task file."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

Config = Annotated[Path, typer.Argument(metavar="TASK.YAML", help="The task file.", show_default=False)]
"""The type of a command's task file."""

Precision = Annotated[
    Literal["auto", "bfloat16", "float32", "int8"] | None,
    typer.Option(
        help="What weights are multiplied in; int8: a single answer in three fifths of the time, nearly the same."
    ),
]
"""The type of the option with which answering commands choose a precision."""

Overrides = dict[str, str]
"""The type of the parameter `overrides`: dotted keys of the task file, as typed, to values, as typed."""

_EVERYWHERE = {
    "json": ("--json", "Print one JSON value on stdout and nothing else."),
    "quiet": ("--quiet", "No progress bars, no notices."),
    "offline": ("--offline", "Touch no network: use what is already on this machine."),
}
_KEEPS_LINES = re.compile(r"^(?=.*^ {4}\S)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Everywhere:
    """The options that may stand anywhere on the line."""

    json: bool
    quiet: bool
    offline: bool


def everywhere(words: Sequence[str]) -> tuple[Everywhere, list[str]]:
    """Take `--json`, `--quiet` and `--offline` off the line, before anything is parsed or imported.

    A usage error is to be told as JSON too, and offline must be set before the hub's library reads it. What comes after
    ``--`` is text, not options.
    """
    end = words.index("--") if "--" in words else len(words)
    before = list(words[:end])
    flags = {flag for flag, _ in _EVERYWHERE.values()}
    asked = Everywhere(**{name: flag in before for name, (flag, _) in _EVERYWHERE.items()})
    return asked, [word for word in before if word not in flags] + list(words[end:])


class Interrupted(Exception):
    """Ctrl-C on its way through typer, with what the command says is kept."""


def adapt(function: Callable[..., None]) -> tuple[Callable[..., None], type[TyperCommand]]:
    """The function as typer is to see it, and the class of its command.

    The options of every command are added for its help (`everywhere` has acted on them already); `overrides` is filled
    from the rest of the line.
    """
    signature = inspect.signature(function, eval_str=True)
    takes_overrides = "overrides" in signature.parameters

    @functools.wraps(function)
    def adapted(context: typer.Context, **values: Any) -> None:
        for name in _EVERYWHERE:
            values.pop(name)
        if takes_overrides:
            values["overrides"] = context.meta[_META]
        try:
            function(**values)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(str(interrupt)) from interrupt

    parameters = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(
            value.replace(kind=value.KEYWORD_ONLY)
            for name, value in signature.parameters.items()
            if name != "overrides"
        ),
        *(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False,
                annotation=Annotated[bool, typer.Option(flag, help=text)],
            )
            for name, (flag, text) in _EVERYWHERE.items()
        ),
    ]
    adapted.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect's own hook
    adapted.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    adapted.__doc__ = _help(function)
    return adapted, TaskCommand if takes_overrides else TyperCommand


_META = "tunesmith.overrides"


class TaskCommand(TyperCommand):
    """A command that takes any `--key value` besides its own options, as an override of the task file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the overrides out, then parse what is left strictly."""
        own = {
            name: getattr(parameter, "is_flag", False)
            for parameter in self.get_params(ctx)
            for name in _options(parameter)
        }
        rest, overrides = split(args, own)
        ctx.meta[_META] = overrides
        return super().parse_args(ctx, rest)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Say in the usage line that any key of the task file can follow."""
        return [*super().collect_usage_pieces(ctx), "[--KEY VALUE]..."]


def _options(parameter: Any) -> list[str]:
    return [option for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("-")]


def split(arguments: Sequence[str], own: dict[str, bool]) -> tuple[list[str], Overrides]:
    """Divide a line into the command's own words and ``{dotted key: value}``.

    `own` has the command's options and whether each is a flag. `--key value`, `--key=value` and a bare `--key` (true)
    are understood, `-` and `_` are the same in a key, and nothing after `--` is a key.
    """
    rest: list[str] = []
    overrides: Overrides = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":
            return [*rest, word, *words], overrides
        key, equals, value = word.partition("=")
        spelled = key.replace("_", "-") if key.startswith("--") else key
        if spelled in own:
            rest.append(spelled + equals + value)
            if not (equals or own[spelled]) and words:
                rest.append(words.pop(0))
        elif not key.startswith("--"):
            rest.append(word)
        elif equals:
            overrides[_dotted(key)] = value
        else:
            overrides[_dotted(key)] = words.pop(0) if words and not words[0].startswith("--") else "true"
    return rest, overrides


def _dotted(key: str) -> str:
    return key.removeprefix("--").replace("-", "_")


def _help(function: Callable[..., None]) -> str:
    """The docstring, with typer told to leave the lines of an indented paragraph as they are."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join("\b\n" + text if _KEEPS_LINES.match(text) else text for text in paragraphs)
