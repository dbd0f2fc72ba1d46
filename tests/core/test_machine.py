from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core import machine
from tunesmith.core.machine import PeakMemory, inspect, peak_mb, reset_peak


def test_this_machine_is_told_in_full() -> None:
    import torch

    found = inspect(torch=True)
    assert 1 <= found.cores <= 4096
    assert found.threads == torch.get_num_threads()
    assert 0 < found.available_gb <= found.memory_gb
    assert found.versions["torch"].startswith(torch.__version__.split("+")[0])
    assert found.precision in {"bfloat16", "float32"}
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()


def test_torch_is_not_imported_unless_asked_for() -> None:
    look = "import sys; from tunesmith.core.machine import inspect; inspect(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("cpuinfo", "units"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16 avx512fp16\n", ("amx_bf16", "avx512_bf16")),
        ("Features\t: fp asimd bf16 i8mm\n", ("bf16",)),
        ("flags\t\t: fpu avx2 avx512f\n", ()),
        ("", ()),
    ],
)
def test_the_precision_follows_from_the_cpu(
    cpuinfo: str, units: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, **keys: cpuinfo if path.name == "cpuinfo" else read(path, **keys)
    )
    found = inspect()
    assert found.bfloat16_units == units
    assert found.precision == ("bfloat16" if units else "float32")


@pytest.mark.parametrize(("supported", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_with_a_gpu_its_own_units_decide(supported: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_ask_torch", lambda: ("Some GPU", 80.0, supported, 8))
    monkeypatch.setattr(machine, "_bfloat16_units", lambda: () if supported else ("amx_bf16",))
    found = inspect(torch=True)
    assert (found.gpu, found.gpu_memory_gb, found.precision) == ("Some GPU", 80.0, precision)


def test_a_container_s_limits_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.core.cgroup.cpu_limit", lambda: 1.5)
    monkeypatch.setattr("tunesmith.core.cgroup.memory_limit", lambda: (512_000_000, 100_000_000))
    found = inspect()
    assert (found.cores, found.memory_gb, found.available_gb) == (1, 0.51, 0.1)


def hold(megabytes: int) -> None:
    """Take memory, touch it, and give it back."""
    bytearray(megabytes * 1_000_000)[:: 1 << 12] = bytes(-(-megabytes * 1_000_000 // (1 << 12)))


def test_the_peak_is_of_the_block_and_not_of_what_came_before() -> None:
    hold(200)
    with PeakMemory() as small:
        hold(20)
    with PeakMemory() as large:
        hold(200)
    assert large.mb - small.mb > 150
    assert abs(peak_mb() - large.mb) < 50


def test_blocks_in_blocks_lose_nothing() -> None:
    with PeakMemory() as outer:
        hold(200)
        with PeakMemory() as inner:
            hold(20)
    assert outer.mb - inner.mb > 150


def test_a_peak_is_seen_where_the_kernel_s_mark_cannot_be_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def refuse(path: Path, *content: Any, **keys: Any) -> int:
        if path.name == "clear_refs":
            raise PermissionError(13, "Permission denied", str(path))
        return write(path, *content, **keys)

    monkeypatch.setattr(Path, "write_text", refuse)
    assert not reset_peak()
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak:
        held = bytearray(200_000_000)
        held[:: 1 << 12] = bytes(len(held[:: 1 << 12]))
        assert peak.look() - before.mb > 150
        del held
    assert peak.mb - before.mb > 150


def test_a_watcher_that_read_before_the_peak_and_writes_after_it_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in CI: the watcher had read a low mark, was put aside, and wrote it over the high one."""
    asked, answered = threading.Event(), threading.Event()
    seen = iter([1e6, 2.0])

    def resident() -> float:
        if threading.current_thread() is threading.main_thread():
            return next(seen)
        asked.set()
        answered.wait()
        return 1.0

    monkeypatch.setattr(machine, "reset_peak", lambda: False)
    monkeypatch.setattr(machine, "_resident_mb", resident)
    with PeakMemory() as peak:
        assert asked.wait(10)
        assert peak.look() == 1e6
        answered.set()
    assert peak.mb == 1e6


def test_the_peak_falls_back_on_the_system_s_account(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = peak_mb()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "nothing here")
    assert peak_mb() >= expected * 0.9
