"""Opening the store: SQLite in a file or PostgreSQL by URL, brought up to date on the way.

SQLite keeps a write-ahead log, so readers never wait. There is one writer at a time in both databases: a write begins
by taking the lock, which makes look-then-write safe between processes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Mistake

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

    from tunesmith.store.store import Store

DEFAULT = "tunesmith.db"
SETTING = "TUNESMITH_STORE"
VERSION_TABLE = "tunesmith_version"
_MIGRATIONS = Path(__file__).with_name("migrations")
_POSTGRESQL_LOCK = 0x74756E65  # any number that nobody else in the database takes: "tune"

_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code

_SQLITE_MISTAKES = {
    "SQLITE_BUSY": "another process has held it locked for {wait:g} s; wait for that process or end it",
    "SQLITE_READONLY": "it cannot be written; check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check that its folder is there and can be written",
    "SQLITE_FULL": "the disk is full; free some space or point {setting} to another disk",
    "SQLITE_IOERR": "the disk is full or failing; free some space or point {setting} to another disk",
    "SQLITE_NOTADB": "this is not a database; point {setting} to another file or move this one away",
    "SQLITE_CORRUPT": "the database is damaged; restore it from a backup or move it away to begin a new one",
}


def open_store(where: str | Path | None = None, *, create: bool = True, wait_seconds: float = 10.0) -> Store:
    """Open the store at `where`: a file, `postgresql://user@host/name`, or None for what the project uses.

    None means the setting TUNESMITH_STORE, or `tunesmith.db` in the current folder. The tables are made, or brought to
    this version, before anything else. `wait_seconds` is how long to wait for another process's write.
    Raises Mistake when it cannot be opened, is locked, was written by a newer Tunesmith, lacks its driver, or, with
    ``create=False``, is not there.
    """
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    from tunesmith.store.store import Store

    url = _url(os.environ.get(SETTING) or DEFAULT if where is None else where)
    if url.get_backend_name() == "sqlite":
        _check_file(url, create)
    # A connection lives as long as one call: nothing to close, and a fork inherits none.
    engine = create_engine(url, poolclass=NullPool, connect_args=_connect_arguments(url, wait_seconds))
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin)
    shown = str(url.database) if engine.dialect.name == "sqlite" else repr(url)
    mistakes = partial(told_as_mistakes, shown, wait_seconds)
    with mistakes():
        bring_up_to_date(engine)
    return Store(engine, mistakes)


def writing(engine: Engine) -> Engine:
    """The same database, for transactions that write: they wait for their turn at the beginning."""
    return engine.execution_options(tunesmith_writes=True)


def bring_up_to_date(engine: Engine) -> None:
    """Make or migrate the tables; of several processes that come at once, one does it. Raises Mistake when newer."""
    with engine.begin() as connection:
        if _is_current(connection):
            return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def known_versions() -> list[str]:
    """The versions of the tables this code knows, oldest first: the numbers of the migration files."""
    return sorted(path.name[:4] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


@contextmanager
def told_as_mistakes(where: str, wait_seconds: float) -> Iterator[None]:
    """Tell what a person can put right about the database in one line; anything else is a bug and passes."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        name = getattr(error.orig, "sqlite_errorname", "")
        for code, told in _SQLITE_MISTAKES.items():
            if name.startswith(code):
                raise Mistake(f"{where}: {told.format(wait=wait_seconds, setting=SETTING)}") from error
        if getattr(error.orig, "sqlstate", "") == _LOCK_NOT_AVAILABLE:
            raise Mistake(f"{where}: {_SQLITE_MISTAKES['SQLITE_BUSY'].format(wait=wait_seconds)}") from error
        connecting = error.statement is None or error.connection_invalidated
        if isinstance(error.orig, sqlite3.Error) or not connecting:
            raise
        reason = str(error.orig).strip().splitlines()[0]
        raise Mistake(
            f"{where}: no connection ({reason}); check that the server runs and {SETTING} is right"
        ) from error


def _is_current(connection: Connection) -> bool:
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table(VERSION_TABLE):
        return False
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    known = known_versions()
    if version is not None and version not in known:
        raise Mistake(
            f"{connection.engine.url!r}: written by a newer Tunesmith (tables {version}; this one knows up to "
            f"{known[-1]}); type `pip install --upgrade tunesmith`"
        )
    return bool(version == known[-1])


def _url(where: str | Path) -> URL:
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if "://" not in str(where):
        return URL.create("sqlite", database=str(Path(where).expanduser()))
    try:
        url = make_url(str(where))
    except (ArgumentError, ValueError):
        raise Mistake(f"got a store address that is no URL; expected {SETTING}=postgresql://user@host/name") from None
    if url.get_backend_name() == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise Mistake(f"store: got {url.drivername}://; expected a file or postgresql://user@host/name")
    if find_spec("psycopg") is None:
        raise Mistake("store: PostgreSQL needs its driver; type `pip install 'tunesmith[postgresql]'`")
    return url.set(drivername="postgresql+psycopg")


def _check_file(url: URL, create: bool) -> None:
    path = Path(str(url.database))
    if path.is_dir():
        raise Mistake(f"{path}: got a folder; expected a database file such as {path / DEFAULT}")
    if path.exists():
        return
    if not create:
        raise Mistake(f"{path}: no store here; go to the project's folder, or begin with `tunesmith climb task.yaml`")
    if not path.absolute().parent.is_dir():
        raise Mistake(f"{path}: its folder is not there; type `mkdir -p {path.absolute().parent}`")


def _connect_arguments(url: URL, wait_seconds: float) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": wait_seconds}
    return {
        "connect_timeout": round(wait_seconds),
        "options": f"-c lock_timeout={round(wait_seconds * 1000)}",
        "client_encoding": "utf8",  # without it a database in SQL_ASCII gives bytes where SQLAlchemy wants text
    }


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late: not before DDL, and never as IMMEDIATE
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("tunesmith_writes", False)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif writes:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})")
