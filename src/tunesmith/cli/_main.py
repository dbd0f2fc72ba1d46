"""The command `tunesmith`: finds the command's file, and ends every mistake in one line and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tunesmith.cli import _options, _show
from tunesmith.core import environment, progress, rooms
from tunesmith.core.errors import Mistake, nearest

MISTAKE, INTERRUPTED, PIPE_CLOSED = 2, 130, 1

_OFFLINE = {"TUNESMITH_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code.

    0: done. 2: a mistake a person can put right, told on stderr. 130: interrupted. A bug is raised.
    """
    asked, words = _options.everywhere(sys.argv[1:] if arguments is None else arguments)
    quiet = asked.json or asked.quiet
    _prepare_environment(asked.offline, quiet)
    with _show.mode(asked.json), progress.quiet(quiet):
        try:
            code = _run(words)
            sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes stdout once more on its way out; there it must find somewhere to write.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = PIPE_CLOSED
    return code


def _run(words: list[str]) -> int:
    try:
        code = typer.main.get_command(_application()).main(words or ["--help"], "tunesmith", standalone_mode=False)
    except Mistake as mistake:
        _show.error(str(mistake))
        return MISTAKE
    except typer.TyperException as error:
        _show.error(_usage(error))
        return MISTAKE
    except (KeyboardInterrupt, _options.Interrupted, typer.Abort) as interrupt:
        _show.error(f"interrupted; {interrupt}" if str(interrupt) else "interrupted")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _prepare_environment(offline: bool, quiet: bool) -> None:
    """Quick, silent, without telemetry; all before the first heavy import, and a person's own setting wins."""
    environment.prepare()
    environment.collect_seldom()
    if offline:
        os.environ.update(_OFFLINE)
    if quiet:
        os.environ.update(_QUIET)


def _application() -> typer.Typer:
    settings = {"help_option_names": ["-h", "--help"], "token_normalize_func": _with_hyphens}
    application = typer.Typer(cls=Commands, context_settings=settings, **_PLAIN)

    def top(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
        ] = False,
    ) -> None:
        """From your own examples to the cheapest language model that does the work: prompt, tune, prove.

        Example:

            tunesmith init my-project --task classification --data reviews.csv
            tunesmith climb my-project/task.yaml
        """

    application.callback()(_options.adapt(top)[0])
    return application


def _with_hyphens(word: str) -> str:
    """`--memory_gb` is `--memory-gb`."""
    return word.replace("_", "-")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        _show.line(f"tunesmith {version('tunesmith')}")
        raise typer.Exit


class Commands(TyperGroup):
    """The commands, one a file of the room: listed from their first lines, imported when chosen."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command as it is typed."""
        return [name.replace("_", "-") for name in rooms.names("cli")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the command's file. Raises Mistake with the nearest name when there is none."""
        if cmd_name.replace("-", "_") not in rooms.names("cli"):
            raise Mistake(f"there is no command '{cmd_name}'; {nearest(cmd_name, rooms.names('cli'))}")
        return build(rooms.choice("cli", cmd_name))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list in `tunesmith --help`, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, rooms.summary("cli", name.replace("-", "_"))) for name in self.list_commands(ctx)]
            )


def build(module: ModuleType) -> Any:
    """The typer command of a command's file."""
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    if hasattr(module, "command"):
        single = typer.Typer(add_completion=False, **_PLAIN)
        adapted, kind = _options.adapt(module.command)
        single.command(name, cls=kind)(adapted)
        return typer.main.get_command(single)
    group = typer.Typer(name=name, help=module.__doc__, add_completion=False, invoke_without_command=True, **_PLAIN)
    group.callback()(_help_when_bare)
    for registered in module.app.registered_commands:
        adapted, kind = _options.adapt(registered.callback)
        group.command(registered.name, cls=kind)(adapted)
    return typer.main.get_command(group)


def _help_when_bare(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        _show.line(context.get_help())


def _usage(error: typer.TyperException) -> str:
    """A usage error in one line, with what to type."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{message}; type `{context.command_path} --help`" if context is not None else message
