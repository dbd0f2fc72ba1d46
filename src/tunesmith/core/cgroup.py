"""What a container allows: the limits of the control groups this process lives in, version 1 and 2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as a number near 2^63."""


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that may be used, or None when nothing limits it. `root` is where /proc and /sys lie."""
    limits = []
    for folder in _folders(root, "cpu"):
        quota, period = _quota(folder)
        if quota and quota > 0 and period:
            limits.append(quota / period)
    return min(limits, default=None)


def memory_limit(root: Path = Path("/")) -> tuple[int, int] | None:
    """The tightest limit in bytes and what is still free under it, or None when nothing limits memory.

    Pages of files that are not in use count as free: the kernel drops them before it kills anybody.
    """
    limits = []
    for folder in _folders(root, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit and limit < _UNLIMITED:
            free = limit - max((used or 0) - _inactive_files(folder), 0)
            limits.append((limit, max(free, 0)))
    return (min(limit for limit, _ in limits), min(free for _, free in limits)) if limits else None


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of our group and of every group around it, where the controller is kept."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (names or "")
        if names and not mount.is_dir():
            mount = root / "sys/fs/cgroup" / controller
        group = mount / path.strip("/")
        if not group.is_dir():  # the path is the host's, and we see only our own part of the tree
            group = mount
        while group.is_relative_to(mount):
            yield group
            group = group.parent


def _quota(folder: Path) -> tuple[int | None, int | None]:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return (int(quota) if quota != "max" else None), int(period)
    return _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")


def _inactive_files(folder: Path) -> int:
    with contextlib.suppress(OSError):
        for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def _number(file: Path) -> int | None:
    """The number in a file; None when there is no such file or it says "max"."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
