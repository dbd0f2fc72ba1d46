"""How a command prints its result: one JSON value with `--json`, tables and lines for people otherwise."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.evaluation.amounts import NONE, quality

if TYPE_CHECKING:
    from rich.table import Table

_json = False
_WIDE = 10_000


@contextmanager
def mode(as_json: bool) -> Iterator[None]:
    """Print JSON inside, or not."""
    global _json
    before, _json = _json, as_json
    try:
        yield
    finally:
        _json = before


def show(value: object, for_people: Callable[[], None]) -> None:
    """Print a command's result: `value` as one JSON object or array with `--json`, else what `for_people` prints.

    `value` may hold dataclasses, paths, times, numpy numbers; a number that is not finite becomes null.
    """
    if _json:
        typer.echo(json.dumps(plain(value), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        for_people()


def error(message: str) -> None:
    """Tell a mistake: a line each on stderr, and with `--json` an object on stdout as well."""
    for line in message.splitlines():
        typer.echo(f"tunesmith: {line}", err=True)
    if _json:
        typer.echo(json.dumps({"error": message}, ensure_ascii=False))


def line(text: str = "") -> None:
    """A line of a result for people."""
    typer.echo(text)


def stream(piece: str) -> None:
    """A piece of text as it comes, for people; with `--json` nothing, the result holds all of it."""
    if not _json:
        typer.echo(piece, nl=False)
        sys.stdout.flush()


def rich(grid: Table) -> None:
    """A table that somebody else has filled."""
    _print(grid, ())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table for people. Columns of numbers stand to the right; piped, no cell is cut."""
    from rich import box
    from rich.table import Table

    rows = [list(row) for row in rows]
    grid = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numbers = all(isinstance(row[index], int | float | None) for row in rows)
        grid.add_column(column, justify="right" if numbers else "left", overflow="fold")
    _print(grid, rows)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Named values for people, one a line; those that are None are left out."""
    from rich.table import Table

    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    _print(grid, [pair for pair in pairs if pair[1] is not None])


def _print(grid: Table, rows: Iterable[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.text import Text

    for row in rows:
        grid.add_row(*(Text(cell(value)) for value in row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE, highlight=False).print(grid)


def cell(value: object) -> str:
    """A value as a table shows it: – for nothing, four digits of a fraction, thousands apart."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M")
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """A measured value with its interval: ``0.834 [0.802, 0.866]``."""
    if value is None or low is None or high is None:
        return cell(value)
    return f"{quality(value)} [{quality(low)}, {quality(high)}]"


def plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, str | bool | int | None):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's and torch's numbers and arrays, without importing either
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} cannot be shown as JSON")
