"""The page a climb or a run leaves: one self-contained HTML file, and the same rungs as a table for the terminal.

Nothing on the page comes from elsewhere: styles, script and pictures are inline, and its content security policy
refuses everything that is not, so that text out of the data can never become code.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.files import atomic_write
from tunesmith.evaluation import amounts
from tunesmith.evaluation.amounts import words
from tunesmith.evaluation.views import climb_view, is_finished, mixture_view, run_view, scale_view, sweep_view

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.table import Table

_PAGE = Path(__file__).parent / "page"
# The costs of a rung that find room in a terminal of 80 columns: the heading, the field, how it is written.
_COSTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("to make", "seconds", amounts.duration),
    ("memory", "peak_memory_mb", amounts.memory),
    ("artifact", "artifact_bytes", amounts.size),
    ("a query", "seconds_per_query", amounts.duration),
    ("forgot", "forgetting_kl", amounts.quality),
)
_DRIFT = ("drift", "forgetting_drift", amounts.quality)


def write_report(folder: Path, climb: Mapping[str, Any]) -> Path:
    """Write `report.html` into `folder` from what climb.json holds, and say where it is.

    The page appears whole or not at all; what a rung does not know is a dash. Raises Mistake when the folder cannot be
    written.
    """
    return _write(folder, "climb.html.j2", climb_view(climb))


def write_run_report(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write `report.html` into `folder` for one run: its metrics, learning curve, receipt and outputs.

    `result` has the fields of a rung of climb.json and, where they are known, `task`, `model`, `data`, `machine`,
    `receipt`, `metrics`, `verdict` and `command` beside them. Raises Mistake when the folder cannot be written.
    """
    return _write(folder, "run.html.j2", run_view(result))


def write_mixture_report(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write `report.html` into `folder` for several tasks trained together: each task's metrics, share and outputs.

    `result` is what `recipes.mixture` returns. Raises Mistake when the folder cannot be written.
    """
    return _write(folder, "mixture.html.j2", mixture_view(result))


def write_scale_report(folder: Path, scale: Mapping[str, Any]) -> Path:
    """Write `report.html` into `folder` from what scale.json holds: an artifact at several strengths.

    Raises Mistake when the folder cannot be written.
    """
    return _write(folder, "scale.html.j2", scale_view(scale))


def write_sweep_report(folder: Path, sweep: Mapping[str, Any]) -> Path:
    """Write `report.html` into `folder` from what sweep.json holds: every trial, and which key matters.

    Raises Mistake when the folder cannot be written.
    """
    return _write(folder, "sweep.html.j2", sweep_view(sweep))


def table(climb: Mapping[str, Any]) -> Table:
    """The rungs of a climb for the terminal: quality with its interval, what each cost, and why others are missing."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    drawn.add_column("  rung", no_wrap=True)
    drawn.add_column(words(climb.get("metric")), no_wrap=True)
    rungs = climb.get("rungs", ())
    costs = (*_COSTS[:-1], _DRIFT) if any(amounts.is_number(rung.get("forgetting_drift")) for rung in rungs) else _COSTS
    for heading, _, _ in costs:
        drawn.add_column(heading, justify="right", no_wrap=True)
    for rung in filter(is_finished, rungs):
        name = f"{'→' if rung.get('chosen') else ' '} {rung['name']}"
        cells = (name, _with_interval(rung), *(written(rung.get(field)) for _, field, written in costs))
        drawn.add_row(*map(Text, cells), style="bold green" if rung.get("chosen") else "")
    missing = [f"  {_why_missing(rung)}" for rung in rungs if not is_finished(rung)]
    drawn.caption = Text("\n".join(missing)) if missing else None
    return drawn


def _with_interval(rung: Mapping[str, Any]) -> str:
    """``0.836 ±0.031``: half the interval's width, for where there is no room for both its ends."""
    low, high, quality = rung.get("low"), rung.get("high"), amounts.quality(rung["value"])
    return f"{quality} ±{amounts.quality((high - low) / 2)}" if low is not None and high is not None else quality


def _why_missing(rung: Mapping[str, Any]) -> str:
    return f"{rung['name']} {': '.join(filter(None, (rung.get('status'), rung.get('reason'))))}"


@cache
def _pages() -> Environment:
    """The templates and what they may call; kept, because reading them takes longer than writing a page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    written = (amounts.duration, amounts.memory, amounts.size, amounts.count, amounts.quality, amounts.difference)
    environment.filters |= {function.__name__: function for function in written}
    environment.globals |= {"interval": amounts.interval, "is_number": amounts.is_number}
    return environment


def _write(folder: Path, template: str, view: Mapping[str, Any]) -> Path:
    style, script = ((_PAGE / f"page.{suffix}").read_text(encoding="utf-8") for suffix in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _pages().get_template(template).render(**view, style=style, script=script, script_hash=digest)
    path = folder / "report.html"
    atomic_write(path, page)
    return path
