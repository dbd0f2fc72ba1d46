"""The environment that libraries read once, when they are first imported: no telemetry, and how threads wait.

A thread that waits by spinning goes on at once, but takes the core from whoever else has work. Measured on two cores
with `benchmarks/waiting.py` (LoRA steps of 1,000 tokens): spinning without end 600 tokens/s alone and under 50 beside
one busy process; never spinning 385 and 285; spinning for 2,000 turns 570 and 150. So threads spin for 2,000 turns
where the machine is idle at the start, and not at all where others have worked for the last minute.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from pathlib import Path

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
NOISY = ("bitsandbytes.backends.cpu.ops",)
"""Loggers that warn on import of what nobody asked for: bitsandbytes, of an optional package of kernels."""
SPIN_TURNS = 2000
COLLECT_AFTER = (100_000, 50, 1000)
"""Objects made, and collections of younger ones, before unreachable ones are looked for; Python has 700, 10, 10."""
_LOOK_SECONDS = 0.06
_BUSY_CORES = 0.3


def prepare() -> None:
    """Set what is not set yet; call it before torch or transformers are imported. A person's own setting wins."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        # Busy now and for the last minute: what works for a moment only must not slow down a run of hours.
        minute = os.getloadavg()[0] if hasattr(os, "getloadavg") else 1.0
        busy = minute > _BUSY_CORES and busy_cores() > _BUSY_CORES
        os.environ["GOMP_SPINCOUNT"] = "0" if busy else str(SPIN_TURNS)


def collect_seldom() -> None:
    """Look for unreachable objects seldom, in a process that is ours.

    A million objects come with torch and transformers and stay; looking through them again and again was a sixth of the
    time to the first training step (LOG.md).
    """
    gc.set_threshold(*COLLECT_AFTER)


def busy_cores(seconds: float = _LOOK_SECONDS) -> float:
    """How many cores' worth of work other processes do, by a short look (0 where the system does not tell)."""
    try:
        before, begun = _busy_ticks(), time.process_time()
        time.sleep(seconds)
        after, own = _busy_ticks(), time.process_time() - begun
    except (OSError, ValueError):
        return 0.0
    ticks = os.sysconf("SC_CLK_TCK")
    return max(0.0, ((after - before) / ticks - own) / seconds)


def _busy_ticks() -> int:
    """Ticks that all cores together have worked: user, nice, system, interrupts, stolen by other machines."""
    line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    user, nice, system, _idle, _waiting, *others = (int(word) for word in line.split()[1:9])
    return user + nice + system + sum(others)
