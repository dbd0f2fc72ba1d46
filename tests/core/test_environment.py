"""No telemetry, and threads that do not take the core from others."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import time

import pytest

from tunesmith.core import environment


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*environment.QUIET, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    return monkeypatch


def test_telemetry_is_off_and_a_persons_setting_wins(bare: pytest.MonkeyPatch) -> None:
    import os

    bare.setenv("TOKENIZERS_PARALLELISM", "true")
    bare.setattr(environment, "busy_cores", lambda: 0.0)
    environment.prepare()
    assert os.environ["DO_NOT_TRACK"] == os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert not any(logging.getLogger(name).isEnabledFor(logging.WARNING) for name in environment.NOISY)


@pytest.mark.parametrize(
    ("busy", "minute", "turns"), [(0.0, 2.0, "2000"), (0.1, 2.0, "2000"), (1.0, 0.0, "2000"), (1.0, 1.5, "0")]
)
def test_threads_spin_only_where_nobody_else_works(
    bare: pytest.MonkeyPatch, busy: float, minute: float, turns: str
) -> None:
    bare.setattr("os.getloadavg", lambda: (minute, 9.0, 9.0))
    import os

    bare.setattr(environment, "busy_cores", lambda: busy)
    environment.prepare()
    assert os.environ["GOMP_SPINCOUNT"] == turns


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_a_persons_own_waiting_is_left_alone(bare: pytest.MonkeyPatch, name: str) -> None:
    import os

    bare.setenv(name, "ACTIVE")
    bare.setattr(environment, "busy_cores", lambda: 9.0)
    environment.prepare()
    assert os.environ[name] == "ACTIVE"
    assert {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ) == {name}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how busy the machine is")
def test_another_process_at_work_is_seen() -> None:
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        assert environment.busy_cores(0.3) > 0.3
    finally:
        worker.kill()
        worker.wait()


def test_our_own_work_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, own = iter([1000, 1010]), iter([5.0, 5.1])
    monkeypatch.setattr(environment, "_busy_ticks", lambda: next(ticks))
    monkeypatch.setattr(time, "process_time", lambda: next(own))
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert environment.busy_cores(0.1) == pytest.approx(0.0, abs=1e-9)


def test_a_process_of_ours_looks_for_unreachable_objects_seldom() -> None:
    before = gc.get_threshold()
    try:
        environment.collect_seldom()
        assert gc.isenabled()
        assert gc.get_threshold() == environment.COLLECT_AFTER
    finally:
        gc.set_threshold(*before)
