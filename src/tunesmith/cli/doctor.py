"""What this machine has, what of it will be used, and what stands in the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.cli import _show
from tunesmith.core.machine import Machine, inspect
from tunesmith.core.packages import REMEDY, cache_home, offline
from tunesmith.evaluation import amounts

ENOUGH_DISK_GB = 5.0
"""A small model, converted, with a few adapters and checkpoints of it."""
ENOUGH_MEMORY_GB = 3.0
"""What tuning a model of 135 million parameters takes, and a little more."""


@dataclass(frozen=True)
class Health:
    """The machine and our place on it; `torch_problem` is why torch cannot be imported, "" when it can."""

    machine: Machine
    torch_problem: str
    cache: Path
    cache_bytes: int
    cache_writable: bool
    disk_free_gb: float
    offline: bool


def command() -> None:
    """Cores, memory, bfloat16 units, GPU, versions, cache and disk of this machine, and what will be used of them.

    Example:

        tunesmith doctor --json
    """
    health = _examine()
    advice = list(_advice(health))
    _show.show(_as_value(health, advice), lambda: _print(health, advice))


def _examine() -> Health:
    try:
        machine, problem = inspect(torch=True), ""
    except (ImportError, OSError) as error:  # a broken installation is what a doctor is called for
        machine, problem = inspect(), f"{type(error).__name__}: {error}"
    cache = cache_home()
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return Health(
        machine=machine,
        torch_problem=problem,
        cache=cache,
        cache_bytes=_size(cache),
        cache_writable=there.is_dir() and os.access(there, os.W_OK | os.X_OK),
        disk_free_gb=round(shutil.disk_usage(there).free / 1e9, 1),
        offline=offline(),
    )


def _size(folder: Path) -> int:
    """Bytes in a folder; what another process takes away meanwhile does not count."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                total += Path(place, file).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _advice(health: Health) -> Iterator[str]:
    """What a person should know or can do, a line each; nothing when all is well."""
    machine = health.machine
    if health.torch_problem:
        yield f"torch cannot be imported ({health.torch_problem}); type `pip install --force-reinstall torch`"
    if machine.memory_gb < ENOUGH_MEMORY_GB:
        yield f"{machine.memory_gb:.1f} GB of memory is little; {ENOUGH_MEMORY_GB:.0f} GB tunes the smallest model"
    if machine.precision == "float32" and not machine.gpu:
        yield "the CPU has no bfloat16 units, so float32 is used: the same results, more memory, slower"
    if not machine.compiler:
        yield "there is no C compiler (gcc or clang), so torch does all: the same results, slower"
    if not health.cache_writable:
        yield f"{health.cache} cannot be written; {REMEDY}"
    if health.disk_free_gb < ENOUGH_DISK_GB:
        yield f"{health.disk_free_gb:.1f} GB of disk are free at {health.cache}; free some, or {REMEDY}"


def _as_value(health: Health, advice: list[str]) -> dict[str, Any]:
    return {
        **health.machine.as_dict(),
        "device": _device(health.machine),
        "torch_problem": health.torch_problem,
        "cache": health.cache,
        "cache_bytes": health.cache_bytes,
        "disk_free_gb": health.disk_free_gb,
        "offline": health.offline,
        "advice": advice,
    }


def _device(machine: Machine) -> str:
    return "cuda" if machine.gpu else "cpu"


def _print(health: Health, advice: list[str]) -> None:
    machine = health.machine
    gpu = f"{machine.gpu} · {machine.gpu_memory_gb:.0f} GB" if machine.gpu else "none"
    _show.facts(
        (
            ("system", machine.system),
            ("processor", f"{machine.processor} · {machine.cores} cores"),
            ("memory", f"{machine.memory_gb:.1f} GB, {machine.available_gb:.1f} GB of it free"),
            ("bfloat16 units", ", ".join(machine.bfloat16_units) or "none"),
            ("GPU", "torch could not be asked" if health.torch_problem else gpu),
            ("compiler", machine.compiler or "none"),
            ("versions", " · ".join(f"{name} {version}" for name, version in machine.versions.items())),
            ("cache", f"{health.cache} · {amounts.size(health.cache_bytes)}"),
            ("disk", f"{health.disk_free_gb:,.1f} GB free"),
            ("network", "off limits (offline)" if health.offline else "used when something is to be fetched"),
            ("will be used", f"{_device(machine)} · {machine.threads} threads · {machine.precision}"),
        )
    )
    for told in advice:
        _show.line(f"! {told}")
