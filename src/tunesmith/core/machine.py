"""What this machine has, what of it will be used, and the peak of the memory a block of work took."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import sys
import threading
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tunesmith.core import cgroup

_PACKAGES = ("tunesmith", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy", "datasets")
_BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as this process may use it.

    `cores` and the memory (GB, 10^9 bytes) respect affinity and the container's limits. `bfloat16_units` names what the
    CPU multiplies bfloat16 with, () when it has nothing. `precision` is what frozen weights are kept and multiplied in:
    bfloat16 where the GPU, or without one the CPU, has units for it, else float32. `gpu` is "" and `gpu_memory_gb` 0
    when there is none or torch was not asked. `threads` is what torch will use.
    """

    system: str
    processor: str
    cores: int
    threads: int
    memory_gb: float
    available_gb: float
    bfloat16_units: tuple[str, ...]
    gpu: str
    gpu_memory_gb: float
    precision: Literal["bfloat16", "float32"]
    compiler: str
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The machine as plain JSON types."""
        return dataclasses.asdict(self) | {"bfloat16_units": list(self.bfloat16_units)}


def inspect(*, torch: bool = False) -> Machine:
    """Look at the machine. With ``torch=True`` torch is imported and asked about a GPU and its threads."""
    gpu, gpu_memory, gpu_bfloat16, threads = _ask_torch() if torch else ("", 0.0, False, _threads())
    units = _bfloat16_units()
    total, available = _memory()
    return Machine(
        system=platform.platform(),
        processor=_cpuinfo("model name") or platform.processor() or platform.machine(),
        cores=_cores(),
        threads=threads,
        memory_gb=round(total / _GB, 2),
        available_gb=round(available / _GB, 2),
        bfloat16_units=units,
        gpu=gpu,
        gpu_memory_gb=round(gpu_memory, 2),
        precision="bfloat16" if (gpu_bfloat16 if gpu else units) else "float32",
        compiler=_compiler(),
        versions=_versions(),
    )


def peak_mb() -> float:
    """The most memory (resident, MB of 10^6 bytes) this process held, ever or since `reset_peak` where that works."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def reset_peak() -> bool:
    """Start the peak anew from what is held now. Returns False where the system does not allow it.

    A `PeakMemory` that is measuring keeps what it has seen so far.
    """
    for measuring in _measuring:
        measuring.look()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


class PeakMemory:
    """The peak of a block of work: ``with PeakMemory() as peak: ...`` then ``peak.mb``.

    `mb` is the resident memory of the whole process, in MB of 10^6 bytes, at the worst moment; `gpu_mb` what torch
    held on the GPU then, 0 without one. Blocks may stand in one another. Where the kernel's own mark cannot be reset a
    thread looks every 20 ms, and a shorter peak can escape it.
    """

    def __init__(self) -> None:
        self.mb = 0.0
        self.gpu_mb = 0.0
        self._noting = threading.Lock()
        self._done = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if not reset_peak():
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        _reset_gpu()
        _measuring.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.look()
        _measuring.remove(self)
        if self._watcher is not None:
            self._done.set()
            self._watcher.join()

    def look(self) -> float:
        """Take note of the peak so far and return it, in MB."""
        self._note(peak_mb() if self._watcher is None else _resident_mb())
        self.gpu_mb = max(self.gpu_mb, _gpu_peak_mb())
        return self.mb

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._note(_resident_mb())

    def _note(self, mb: float) -> None:
        with self._noting:  # the watcher and the block itself both note; neither may overwrite the other's higher mark
            self.mb = max(self.mb, mb)


_measuring: list[PeakMemory] = []


def _resident_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def _gpu_in_use() -> Any:
    """torch.cuda if this process has started it, else None: asking must not start it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _gpu_peak_mb() -> float:
    cuda = _gpu_in_use()
    return float(cuda.max_memory_allocated()) / 1e6 if cuda else 0.0


def _reset_gpu() -> None:
    for measuring in _measuring:
        measuring.gpu_mb = max(measuring.gpu_mb, _gpu_peak_mb())
    if cuda := _gpu_in_use():
        cuda.reset_peak_memory_stats()


def _ask_torch() -> tuple[str, float, bool, int]:
    """The GPU's name, its memory in GB, whether it multiplies bfloat16, and torch's threads."""
    import torch

    threads = torch.get_num_threads()
    if not torch.cuda.is_available():
        return "", 0.0, False, threads
    memory = torch.cuda.get_device_properties(0).total_memory / _GB
    return torch.cuda.get_device_name(0), memory, torch.cuda.is_bf16_supported(including_emulation=False), threads


def _cores() -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cgroup.cpu_limit()
    return max(1, min(allowed, int(limit))) if limit else allowed


def _threads() -> int:
    """What torch will take: OMP_NUM_THREADS where it is set, else every core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else _cores()


def _memory() -> tuple[int, int]:
    """Total and available bytes, the machine's or the container's, whichever is less."""
    import psutil

    memory = psutil.virtual_memory()
    limit = cgroup.memory_limit()
    return (min(memory.total, limit[0]), min(memory.available, limit[1])) if limit else (memory.total, memory.available)


def _bfloat16_units() -> tuple[str, ...]:
    """Instruction sets that multiply bfloat16, as Linux lists them; x86 says "flags", ARM "Features"."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return tuple(unit for unit in _BFLOAT16_UNITS if unit in flags)


def _cpuinfo(key: str) -> str:
    """The first value of `key` in /proc/cpuinfo, "" where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _compiler() -> str:
    """Where a C compiler is, for the engine's kernels; "" when there is none."""
    candidates = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((found for name in candidates if name and (found := shutil.which(name))), "")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
