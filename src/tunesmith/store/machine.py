"""Who makes a run: the machine, the process, the versions; and whether that process still lives."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from tunesmith.store.rows import Status

_PACKAGES = ("tunesmith", "torch", "transformers", "tokenizers", "peft", "numpy")


def this_process() -> dict[str, Any]:
    """This machine and process, enough to tell later whether it still runs (`started`: seconds since 1970)."""
    import psutil

    return {
        "name": socket.gethostname(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def versions() -> dict[str, str]:
    """The versions that a result depends on, of Python and of the packages that are there."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def is_this_process(host: Mapping[str, Any]) -> bool:
    """Whether `host` (from `this_process`) is the process that asks."""
    return bool(host.get("pid") == os.getpid() and lives(host))


def lives(host: Mapping[str, Any]) -> bool | None:
    """Whether the process of `host` runs; None when it is another machine's and we cannot look."""
    import psutil

    if host.get("name") != socket.gethostname():
        return None
    try:
        # A process id is used again after a while; the second in which the process began tells the two apart.
        return abs(psutil.Process(int(host["pid"])).create_time() - float(host["started"])) < 1.0
    except psutil.NoSuchProcess:
        return False


def status_now(status: str, host: Mapping[str, Any]) -> Status:
    """A run's status as it is now: a run that was killed could not say so itself."""
    return "interrupted" if status == "running" and lives(host) is False else cast(Status, status)
