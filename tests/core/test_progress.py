from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from tunesmith.core import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "_clock", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    # pytest puts its own stderr back between the fixtures and the test, so the module's view of it is replaced.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def bars() -> int:
    return 0 if progress._display is None else len(progress._display.tasks)


def work(clock: Clock, steps: int, seconds: float, total: float | None = None) -> None:
    with progress.track(total or steps * 50, description="train") as bar:
        for step in range(steps):
            clock.now += seconds
            bar.advance(50, loss=1.5 - step / 100)


def test_short_work_shows_nothing(clock: Clock, terminal: Terminal) -> None:
    work(clock, steps=10, seconds=0.1)
    assert terminal.getvalue() == ""


def test_long_work_shows_rate_time_left_and_facts(clock: Clock, terminal: Terminal) -> None:
    work(clock, steps=40, seconds=1.0)
    shown = terminal.getvalue()
    for part in ("train", "50 tokens/s", "0:20 left", "loss 1.31"):
        assert part in shown


def test_the_display_is_gone_afterwards_also_after_an_exception(clock: Clock, terminal: Terminal) -> None:
    def broken() -> None:
        with progress.track(10) as bar:
            clock.now += 3
            bar.advance(1)
            assert bars() == 1
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert bars() == 0


def test_nested_bars_and_notices_share_the_screen(clock: Clock, terminal: Terminal) -> None:
    with progress.track(2, "rungs", "climb") as outer:
        clock.now += 3
        outer.advance(1)
        with progress.track(2, "tokens", "lora") as inner:
            clock.now += 3
            inner.advance(1)
            assert bars() == 2
            progress.say("a [notice]")
        assert bars() == 1
    assert "a [notice]" in terminal.getvalue()


def test_off_a_terminal_a_line_at_most_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, steps=40, seconds=1.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0] == "train 25% · 50 tokens/s · 0:30 left · loss 1.41"


def test_an_unknown_total_tells_the_count(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.track(None, "rows", "read") as bar:
        clock.now += 20
        bar.advance(5000)
    assert capsys.readouterr().err == "read 5,000 · 250 rows/s\n"


def test_quiet_means_quiet(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.quiet():
        work(clock, steps=40, seconds=1.0)
        progress.say("unheard")
    with progress.quiet(False):
        progress.say("heard")
    assert capsys.readouterr() == ("", "heard\n")


def test_the_rate_forgets_a_slow_start(clock: Clock) -> None:
    with progress.quiet(), progress.track(None) as bar:
        clock.now += 600
        bar.advance(1)
        for _ in range(31):
            clock.now += 1
            bar.advance(100)
        assert bar.status().startswith("100 tokens/s")


def test_long_spans_are_told_in_hours() -> None:
    assert progress._span(3 * 3600 + 62) == "3:01:02"
