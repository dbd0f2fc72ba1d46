from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli import doctor
from tunesmith.cli._main import main
from tunesmith.core.machine import inspect


def look(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["doctor", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_machine_and_what_will_be_used(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = look(capsys)
    machine = inspect(torch=True)
    assert (told["cores"], told["threads"], told["precision"]) == (machine.cores, machine.threads, machine.precision)
    assert told["device"] == ("cuda" if machine.gpu else "cpu")
    assert told["versions"]["torch"] == machine.versions["torch"]
    assert told["disk_free_gb"] > 0
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for part in (
        machine.processor,
        f"{machine.threads} threads · {machine.precision}",
        str(cache),
        machine.versions["peft"],
    ):
        assert part in shown


def test_the_cache_is_measured_and_not_made(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look(capsys)["cache_bytes"] == 0
    assert not cache.exists()
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "weights").write_bytes(b"x" * 1000)
    (cache / "models" / "link").symlink_to("/etc/passwd-that-is-not-there")
    told = look(capsys)
    assert told["cache"] == str(cache)
    assert told["cache_bytes"] == 1000 + len("/etc/passwd-that-is-not-there")


def test_offline_is_seen(cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNESMITH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert look(capsys)["offline"] is False
    assert main(["--offline", "doctor"]) == 0
    assert "off limits (offline)" in capsys.readouterr().out


def test_a_broken_torch_is_told_and_the_rest_still_shown(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*, torch: bool = False) -> object:
        if torch:
            raise OSError("libtorch_cpu.so: no such file")
        return inspect()

    monkeypatch.setattr(doctor, "inspect", broken)
    told = look(capsys)
    assert told["cores"] == inspect().cores
    assert "torch cannot be imported (OSError: libtorch_cpu.so: no such file)" in told["advice"][0]
    assert main(["doctor"]) == 0
    assert "torch could not be asked" in capsys.readouterr().out


def test_what_stands_in_the_way_is_told(cache: Path) -> None:
    machine = dataclasses.replace(
        inspect(), memory_gb=1.5, precision="float32", bfloat16_units=(), gpu="", compiler="/usr/bin/cc"
    )
    well = doctor.Health(
        machine=dataclasses.replace(machine, memory_gb=8.0, precision="bfloat16"),
        torch_problem="",
        cache=cache,
        cache_bytes=0,
        cache_writable=True,
        disk_free_gb=100.0,
        offline=False,
    )
    assert list(doctor._advice(well)) == []
    ill = dataclasses.replace(
        well, machine=dataclasses.replace(machine, compiler=""), cache_writable=False, disk_free_gb=0.5
    )
    told = list(doctor._advice(ill))
    for part in (
        "1.5 GB of memory is little",
        "no bfloat16 units",
        "no C compiler",
        "cannot be written",
        "0.5 GB of disk",
    ):
        assert sum(part in line for line in told) == 1
    assert len(told) == 5
