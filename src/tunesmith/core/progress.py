"""How far a long piece of work has come: a bar on a terminal, a line now and then in a log, nothing when told so.

Everything goes to stderr; stdout is for results.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WORTH_SHOWING_SECONDS = 2.0
LINE_EVERY_SECONDS = 10.0
_FIRST_LOOK_SECONDS = 0.5
_REDRAW_EVERY_SECONDS = 0.2
_RATE_WINDOW_SECONDS = 30.0

_clock = time.monotonic
_quiet = 0
_display: Progress | None = None


@contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Neither bars nor notices inside; what `--json` and `--quiet` set. `on=False` changes nothing."""
    global _quiet
    _quiet += on
    try:
        yield
    finally:
        _quiet -= on


def say(text: str) -> None:
    """A notice for the person at the screen, on stderr, above any bar that is shown; nothing when quiet."""
    if _quiet:
        return
    if _display is not None:
        _display.console.print(text, markup=False, highlight=False)
    else:
        _write(text)


@contextmanager
def track(total: float | None, unit: str = "tokens", description: str = "") -> Iterator[Bar]:
    """Follow work of `total` units (None where it is not known): call `.advance(n, loss=1.2)` on what this gives.

    Work that takes under two seconds shows nothing. On a terminal it is a bar, which goes when the work is done, with
    the rate, the time left and the latest facts; nested ones stand under each other. Elsewhere it is a line at most
    every ten seconds.
    """
    bar = Bar(total, unit, description)
    try:
        yield bar
    finally:
        bar.close()


class Bar:
    """The work that one `track` follows."""

    def __init__(self, total: float | None, unit: str, description: str) -> None:
        self.total = total
        self.unit = unit
        self.description = description
        self.done = 0.0
        self.facts: dict[str, object] = {}
        self._started = self._shown = _clock()
        self._samples: deque[tuple[float, float]] = deque([(self._started, 0.0)])
        self._task: TaskID | None = None

    def advance(self, n: float = 1, **facts: object) -> None:
        """`n` more units are done; facts (``loss=1.23``) are shown at the end of the line until newer ones come."""
        now = _clock()
        self.done += n
        self.facts.update(facts)
        self._samples.append((now, self.done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_WINDOW_SECONDS:
            self._samples.popleft()
        if not _quiet and self._worth_showing(now):
            self._show(now)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._task is not None:
            _remove(self._task)
            self._task = None

    def status(self) -> str:
        """Rate, time left and facts: ``1,234 tokens/s · 0:42 left · loss 1.203``."""
        (first, before), (last, done) = self._samples[0], self._samples[-1]
        rate = (done - before) / (last - first) if last > first else 0.0
        parts = [f"{_number(rate)} {self.unit}/s"]
        if self.total is not None and rate > 0:
            parts.append(f"{_span(max(self.total - self.done, 0) / rate)} left")
        return " · ".join(parts + [f"{name} {_number(value)}" for name, value in self.facts.items()])

    def _worth_showing(self, now: float) -> bool:
        elapsed = now - self._started
        if elapsed >= WORTH_SHOWING_SECONDS or self._task is not None:
            return True
        expected = elapsed * self.total / self.done if self.total and self.done else 0.0
        return elapsed >= _FIRST_LOOK_SECONDS and expected >= WORTH_SHOWING_SECONDS

    def _show(self, now: float) -> None:
        if sys.stderr.isatty():
            if self._task is None or now - self._shown >= _REDRAW_EVERY_SECONDS:
                self._task = _draw(self._task, self)
                self._shown = now
        elif now - self._shown >= LINE_EVERY_SECONDS:
            so_far = _number(self.done) if self.total is None else f"{self.done / max(self.total, 1e-9):.0%}"
            _write(f"{self.description} {so_far} · {self.status()}".strip())
            self._shown = now


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _draw(task: TaskID | None, bar: Bar) -> TaskID:
    global _display
    if _display is None:
        _display = _new_display()
        _display.start()
    if task is None:
        task = _display.add_task(bar.description, total=bar.total, status="")
    _display.update(task, completed=bar.done, status=bar.status())
    _display.refresh()
    return task


def _new_display() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    # No refreshing thread: on two cores it would wake up inside every matrix product, and nothing changes in between.
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=Console(file=sys.stderr),
        auto_refresh=False,
        transient=True,
    )


def _remove(task: TaskID) -> None:
    global _display
    if _display is None:
        return
    _display.remove_task(task)
    _display.refresh()
    if not _display.tasks:
        _display.stop()
        _display = None


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
