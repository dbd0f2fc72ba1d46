"""Kernels of our own for the CPU: what lies between a layer's products, in one pass over memory each, and attention.

Written in C (`engine/kernels/`), compiled for this very processor the first time they are wanted (two seconds) and kept
in the cache. Nothing depends on them: where there is no compiler torch computes the same. Their threads are those of
torch: one pool, or two would wait for one another.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.errors import Mistake
from tunesmith.core.files import made_once
from tunesmith.core.machine import inspect
from tunesmith.core.packages import cache_home
from tunesmith.core.progress import say

SOURCES = tuple(sorted((Path(__file__).parent / "kernels").glob("*.[ch]")))
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
WIDEST = ("-mprefer-vector-width=512",)
"""What x86 compilers have to be told to use all of a register."""
_KINDS = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_float}
_TAKES = {
    "norm": "ppfppnn",
    "norm_back": "ppppppnn",
    "norm_learned": "ppppnn",
    "total": "pppppnn",
    "turn": "pppfpnnnn",
    "total_adapted": "pppp" + "nn" + "ppnn",
    "gated": "pppnn",
    "gated_adapted": "pppp" + "nn" + "pnn",
    "gated_back": "pppnn",
    "likelihoods": "pppnnn",
    "attend": "pppppp" + "nnnnnf",
    "attend_back": "ppppp" + "nn" + "ppp" + "nnnnnf",
    "decode": "pppp" + "nnnnnn" + "f",
    "few": "pppnnn",
    "few_eighths": "ppppnnn",
}
"""Each function's arguments: (p)ointers, (n)umbers and (f)loats. The C files say what they are."""


class Kernels:
    """The compiled functions for one type of products; what each computes is said where torch does the same."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions: dict[str, Any] = {}
        for name, kinds in _TAKES.items():
            function = self._functions[name] = getattr(library, name)
            function.argtypes, function.restype = [_KINDS[kind] for kind in kinds], None

    def call(self, name: str, *given: Tensor | float | None) -> None:
        """Call a function of the C files, with tensors of the types it says.

        Raises ValueError for one that is not contiguous: the function would read what is not its own.
        """
        self._functions[name](*[_pointer(one) if isinstance(one, Tensor) else one for one in given])


def _pointer(tensor: Tensor) -> int:
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor {list(tensor.shape)} with strides {tensor.stride()}; expected a contiguous one")
    return tensor.data_ptr()


def of(device: torch.device, dtype: torch.dtype) -> Kernels | None:
    """The kernels for tensors on `device` and for products at `dtype`; None where torch has to do it."""
    return kernels(dtype) if device.type == "cpu" else None


@lru_cache
def kernels(dtype: torch.dtype) -> Kernels | None:
    """The kernels compiled for products at `dtype`, None where there is no compiler, or not one that can."""
    threads, compiler = _threads_library(), inspect().compiler
    if threads is None or not compiler or dtype not in (torch.bfloat16, torch.float32):
        return None
    try:
        path = _compiled(compiler, dtype)
        ctypes.CDLL(threads, mode=ctypes.RTLD_GLOBAL)
        return Kernels(ctypes.CDLL(str(path)))
    except (OSError, subprocess.SubprocessError, Mistake) as error:
        say(f"kernels: {compiler} could not make them ({error}); torch does their work, slower")
        return None


def _compiled(compiler: str, dtype: torch.dtype) -> Path:
    """The library, from the cache if it was compiled before from these files, by this compiler, on this processor.

    Each user compiles their own: a library is code, and a cache may be shared. Raises OSError for somebody else's.
    """
    flags = [*FLAGS, *(WIDEST if "x86" in _machine() else ()), *(["-DBFLOAT16"] if dtype == torch.bfloat16 else [])]
    known_by = hashlib.sha256(repr((compiler, _version(compiler), flags, _machine(), os.getuid())).encode())
    for source in SOURCES:
        known_by.update(source.read_bytes())

    def compile_into(folder: Path) -> None:
        sources = [str(source) for source in SOURCES if source.suffix == ".c"]
        # Linked without the compiler's own OpenMP library: its functions are found in the one that torch has loaded.
        for command in ([compiler, *flags, "-c", *sources], [compiler, "-shared", *_objects(), "-o", "kernels.so"]):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)

    library = made_once(cache_home() / "kernels" / known_by.hexdigest()[:24], compile_into) / "kernels.so"
    if library.stat().st_uid != os.getuid():
        raise PermissionError(f"{library} belongs to another user")
    return library


def _objects() -> list[str]:
    return [f"{source.stem}.o" for source in SOURCES if source.suffix == ".c"]


def _version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=20).stdout


@lru_cache
def _machine() -> str:
    """What `-march=native` goes by: the kind of processor and what it can do."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
        return platform.machine() + "".join(sorted(set(told)))
    return platform.machine()


def _threads_library() -> str | None:
    """The OpenMP library that torch has loaded, None where that is not known."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            path = line.rpartition(" ")[2]
            if Path(path).name.startswith(("libgomp", "libiomp5", "libomp")):
                return path
    return None
