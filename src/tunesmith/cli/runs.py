"""List runs, show one, compare two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli import _show
from tunesmith.evaluation import amounts
from tunesmith.store.rows import ArtifactRow, Comparison, DataVersionRow, EvaluationRow, RunRow

if TYPE_CHECKING:
    from tunesmith.store.store import Store

app = typer.Typer()

Where = Annotated[
    str | None,
    typer.Option("--store", help="A file or postgresql:// address; default: tunesmith.db here.", show_default=False),
]
Name = Annotated[str, typer.Argument(help="The run's name, or its folder.", show_default=False)]


@app.command("list")
def list_runs(
    kind: Annotated[
        str | None, typer.Option(help="Only runs of this kind: train, climb ...", show_default=False)
    ] = None,
    store: Where = None,
) -> None:
    """Every run of the project, the newest first.

    Example:

        tunesmith runs list --kind climb
    """
    runs = _open(store).runs(kind)

    def for_people() -> None:
        if not runs:
            _show.line("no runs yet; begin with `tunesmith climb task.yaml`")
            return
        rows = [
            (run.name, run.kind, run.status, _best(run), amounts.duration(run.seconds), run.created) for run in runs
        ]
        _show.table(("run", "kind", "status", "measured", "took", "began"), rows)

    _show.show(runs, for_people)


@app.command("show")
def show_run(name: Name, store: Where = None) -> None:
    """One run: task file, data, measurements, what it left.

    Example:

        tunesmith runs show movie-reviews
    """
    opened = _open(store)
    run = opened.run(_name(name, opened))
    data = opened.data_version(run.data_version) if run.data_version else None
    _show.show({"run": run, "data": data}, lambda: _print_run(run, data))


@app.command("compare")
def compare_runs(
    first: Annotated[str, typer.Argument(help="A run's name, or its folder.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Another's.", show_default=False)],
    store: Where = None,
) -> None:
    """What differs between two runs: task file, data, metrics.

    Example:

        tunesmith runs compare movie-reviews movie-reviews-2
    """
    opened = _open(store)
    comparison = opened.compare(_name(first, opened), _name(second, opened))
    _show.show(comparison, lambda: _print_comparison(comparison))


def _open(store: str | None) -> Store:
    from tunesmith.store.open import open_store

    return open_store(store, create=False)


def _name(given: str, store: Store) -> str:
    """The run's name; its folder, which the shell completes, is understood too."""
    run = store.run_in(Path(given))
    return run.name if run else given


def _print_run(run: RunRow, data: DataVersionRow | None) -> None:
    _show.line(f"{run.name} · {run.kind} · {run.status} · {run.folder}")
    if run.message:
        _show.line(run.message)
    peak = None if run.peak_memory_mb is None else amounts.memory(run.peak_memory_mb)
    _show.facts(
        (
            ("began", run.created),
            ("took", amounts.duration(run.seconds)),
            ("peak memory", peak),
            ("data", f"{data.hash[:12]} · {data.rows:,} rows" if data else None),
            ("part of", run.parent),
            ("machine", f"{run.host['name']} · {run.host['processor']} · {run.host['cores']} cores"),
            ("versions", " · ".join(f"{name} {version}" for name, version in run.versions.items())),
        )
    )
    if run.evaluations:
        _show.table(
            ("split", "metric", "value", "n", "setting"), [_measured(row) for row in run.evaluations], "Measured"
        )
    if run.artifacts:
        _show.table(("artifact", "folder", "size", "of"), [_left(row) for row in run.artifacts], "Left behind")
    _show.table(("key", "value"), [(key, _value(value)) for key, value in _flat(run.config)], "Task file")


def _print_comparison(comparison: Comparison) -> None:
    first, second = comparison.first.name, comparison.second.name
    if comparison.config:
        rows = [(change.key, _value(change.first), _value(change.second)) for change in comparison.config]
        _show.table(("key", first, second), rows, "Task file")
    else:
        _show.line("the task files say the same")
    if comparison.data:
        told = [
            f"{version.hash[:12]} · {version.rows:,} rows" if version else amounts.NONE for version in comparison.data
        ]
        _show.table(("", first, second), [("data", *told)], "Data")
    else:
        _show.line("both saw the same data")
    if comparison.metrics:
        measured = [
            (
                change.split,
                change.metric,
                _number(change.first),
                _number(change.second),
                change.difference,
                _verdict(change.apart),
            )
            for change in comparison.metrics
        ]
        _show.table(("split", "metric", first, second, "difference", "intervals"), measured, "Measured")


def _verdict(apart: bool | None) -> str:
    """Whether two intervals meet, for people."""
    return {True: "apart", False: "overlap", None: amounts.NONE}[apart]


def _best(run: RunRow) -> str:
    """The measurement a run is known by: on the test split if there is one, the latest."""
    on_test = [row for row in run.evaluations if row.split == "test"]
    rows = on_test or list(run.evaluations)
    return f"{rows[-1].split} {rows[-1].metric} {_number(rows[-1])}" if rows else amounts.NONE


def _measured(row: EvaluationRow) -> tuple[object, ...]:
    setting = ", ".join(f"{key} {value}" for key, value in row.setting.items())
    return row.split, row.metric, _number(row), row.n, setting


def _left(row: ArtifactRow) -> tuple[object, ...]:
    return row.kind, row.folder, amounts.size(row.bytes), row.base


def _number(row: EvaluationRow | None) -> str:
    return amounts.NONE if row is None else _show.interval(row.value, row.low, row.high)


def _flat(tree: Any, prefix: str = "") -> list[tuple[str, object]]:
    if not isinstance(tree, dict) or not tree:
        return [(prefix.removesuffix("."), tree)]
    return [pair for key, value in tree.items() for pair in _flat(value, f"{prefix}{key}.")]


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else amounts.NONE if value is None else str(value)
