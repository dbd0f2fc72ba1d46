from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.store.open import open_store
from tunesmith.store.store import Store


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a private PostgreSQL server, which goes with the tests."""
    pytest.importorskip("psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and not shutil.which("initdb"):
        pytest.skip("PostgreSQL is not installed")
    programs = found[-1].parent if found else Path(str(shutil.which("initdb"))).parent
    folder = Path("/tmp") / f"tunesmith-pg-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    user = _not_root()
    if user:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = {
        "check": True,
        "user": user,
        "cwd": folder,
        "stdout": subprocess.DEVNULL,
        "env": {**os.environ, "LC_ALL": "C"},
    }
    subprocess.run([programs / "initdb", "-D", folder / "data", "-U", "tunesmith", "-A", "trust", "-N"], **run)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = [programs / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
    subprocess.run([*control, "-o", options, "start"], **run)
    yield f"postgresql://tunesmith@127.0.0.1:{port}"
    subprocess.run([*control, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder)


def _not_root() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store, of each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "tunesmith.db")
    import psycopg

    address: str = request.getfixturevalue("postgresql")
    name = f"store_{uuid.uuid4().hex}"
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{address}/{name}"


@pytest.fixture
def store(where: str) -> Store:
    return open_store(where)
