"""Which process makes a run, on which machine, and whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, cast

from tunesmith.core.machine import Machine
from tunesmith.store.rows import Status


def this_process(machine: Machine) -> dict[str, Any]:
    """This process and its machine, enough to tell later whether it still runs (`started`: seconds since 1970)."""
    import psutil

    return {
        "name": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "system": machine.system,
        "processor": machine.processor,
        "cores": machine.cores,
        "memory_gb": machine.memory_gb,
        "gpu": machine.gpu,
    }


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
