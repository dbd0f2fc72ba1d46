"""What is in the data, and what is wrong with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from tunesmith.cli import _show
from tunesmith.cli._options import Config, Overrides

app = typer.Typer()

PROBLEMS = 2
"""The exit code when the data have a problem that spoils results; cautions alone end in 0."""
_WIDTH, _LABELS = 40, 20


@app.command("check")
def check_data(config: Config, overrides: Overrides) -> None:
    """Look at all of the data: splits, lengths in tokens, labels, and everything that should be mended or known.

    Bad rows, leaks between splits, contradicting labels, repeats, languages, personal data (counted, never printed). No
    model is loaded. The exit code is 2 when there is a problem, 0 when there are only things to know.

    Example:

        tunesmith data check task.yaml
    """
    from tunesmith.core.config import load_project
    from tunesmith.recipes.check import check

    report = check(load_project(config, overrides))
    _show.show(report, lambda: _print(report))
    if any(finding["severity"] == "problem" for finding in report["findings"]):
        raise typer.Exit(PROBLEMS)


def _print(report: Mapping[str, Any]) -> None:
    unit = next(iter(report["lengths"].values()))["unit"]
    parts = ("shortest", "median", "ninety_fifth", "longest", "over")
    rows = [
        (name, report["rows"][name], *(lengths[part] for part in parts)) for name, lengths in report["lengths"].items()
    ]
    _show.table(("split", "rows", "shortest", "median", "95 %", "longest", "too long"), rows)
    _show.line(f"{unit} in a row")
    for told in _bars(report["lengths"].values()):
        _show.line(told)
    _print_labels(report["labels"])
    for finding in report["findings"]:
        _show.line(f"\n{finding['severity']}: {finding['says']}")
        if finding["do"]:
            _show.line(f"    {finding['do']}")
    if report["bad_rows"]:
        _show.line("\nbad rows")
        for told in report["bad_rows"]:
            _show.line(f"    {told}")
    _show.line(f"\n{_verdict(report['findings'])}")


def _bars(splits: Any) -> Iterator[str]:
    """A histogram of all splits together, a line a bin, from the first that holds a row."""
    bins: dict[tuple[int, int], int] = {}
    for lengths in splits:
        for low, high, count in lengths["histogram"]:
            bins[low, high] = bins.get((low, high), 0) + count
    most = max(bins.values())
    widest = max(len(f"{low:,}–{high:,}") for low, high in bins)
    for (low, high), count in itertools.dropwhile(lambda item: not item[1], sorted(bins.items())):
        bar = "#" * -(-_WIDTH * count // most)
        yield f"  {f'{low:,}–{high:,}':>{widest}}  {bar:<{_WIDTH}}  {count:,}"


def _print_labels(counted: Mapping[str, Mapping[str, int]]) -> None:
    """How often each label is in each split, the most frequent first."""
    if not counted:
        return
    total = {name: sum(labels.values()) for name, labels in counted.items()}
    sums: dict[str, int] = {}
    for labels in counted.values():
        for label, count in labels.items():
            sums[label] = sums.get(label, 0) + count
    order = sorted(sums, key=lambda label: (-sums[label], label))
    first = next(iter(counted))
    rows = [
        (
            label,
            *(labels.get(label, 0) for labels in counted.values()),
            f"{counted[first].get(label, 0) / total[first]:.1%}",
        )
        for label in order[:_LABELS]
    ]
    _show.table(("label", *counted, f"of {first}"), rows)
    if len(order) > _LABELS:
        _show.line(f"… and {len(order) - _LABELS} more labels")


def _verdict(findings: Any) -> str:
    problems, cautions = (
        sum(1 for finding in findings if finding["severity"] == severity) for severity in ("problem", "caution")
    )
    if problems:
        return f"{_count(problems, 'problem')} to mend first, {_count(cautions, 'caution')}"
    return f"no problem, {_count(cautions, 'caution')}; go on with `tunesmith climb`"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
