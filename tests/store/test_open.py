from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect

from tunesmith.core.errors import Mistake
from tunesmith.store import open as opening
from tunesmith.store.open import open_store
from tunesmith.store.store import Store
from tunesmith.store.tables import Base


def start(store: Store) -> int:
    return store.start_run("reviews", "train", {}, None, "runs/reviews")


def test_the_store_lies_in_the_current_folder_or_where_the_setting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_STORE", raising=False)
    open_store()
    assert (tmp_path / "tunesmith.db").is_file()
    monkeypatch.setenv("TUNESMITH_STORE", f"sqlite:///{tmp_path}/elsewhere.db")
    start(open_store())
    assert open_store(tmp_path / "elsewhere.db").run("reviews")


def test_what_was_written_is_there_after_opening_again(where: str) -> None:
    start(open_store(where))
    assert open_store(where, create=False).run("reviews")


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.db", wait_seconds=7)._engine.connect() as connection:
        settings = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in SETTINGS}
    assert settings == SETTINGS


SETTINGS = {"journal_mode": "wal", "busy_timeout": 7000, "foreign_keys": 1}


def test_the_steps_lead_to_the_tables(where: str) -> None:
    store = open_store(where)
    with store._engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "version_table": "tunesmith_version"}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_file_is_the_newest_step() -> None:
    config = Config()
    config.set_main_option("script_location", str(opening._MIGRATIONS))
    steps = ScriptDirectory.from_config(config)
    assert steps.get_current_head() == opening.known_versions()[-1]
    assert sorted(step.revision for step in steps.walk_revisions()) == opening.known_versions()


def test_every_step_can_be_taken_back(where: str) -> None:
    engine = open_store(where)._engine
    config = Config()
    config.set_main_option("script_location", str(opening._MIGRATIONS))
    with opening.writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["tunesmith_version"]
    start(open_store(where))


def test_a_store_of_a_newer_version_is_refused(where: str) -> None:
    store = open_store(where)
    with opening.writing(store._engine).begin() as connection:
        connection.exec_driver_sql("UPDATE tunesmith_version SET version_num = '9999'")
    with pytest.raises(Mistake, match=r"written by a newer Tunesmith \(tables 9999; this one knows up to 0001\)"):
        open_store(where)


HOLDS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_locked_store_is_told_and_can_still_be_read(tmp_path: Path) -> None:
    path = tmp_path / "tunesmith.db"
    start(open_store(path))
    store = open_store(path, wait_seconds=0.2)
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Mistake, match=r"tunesmith.db: another process has held it locked for 0.2 s; wait"):
            store.finish_run(1)
        assert open_store(path).run("reviews").status == "running"
    store.finish_run(1)


@pytest.mark.server
def test_a_locked_postgresql_store_is_told(postgresql: str, where: str) -> None:
    if not where.startswith("postgresql"):
        pytest.skip("SQLite has its own test")
    import psycopg

    store = open_store(where, wait_seconds=1)
    with psycopg.connect(where) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", (opening._POSTGRESQL_LOCK,))
        with pytest.raises(Mistake, match="another process has held it locked for 1 s"):
            start(store)
    start(store)


@pytest.mark.server
def test_a_postgresql_that_is_not_there_is_told_without_the_password(postgresql: str) -> None:
    with pytest.raises(Mistake, match="no connection") as caught:
        open_store("postgresql://me:secret@127.0.0.1:1/none", wait_seconds=2)
    assert "secret" not in str(caught.value)
    with pytest.raises(Mistake, match=r'no connection .*database "nowhere" does not exist'):
        open_store(f"{postgresql}/nowhere")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("PRAGMA query_only = ON", "it cannot be written; check the permissions"),
        ("PRAGMA max_page_count = 1", "the disk is full; free some space or point TUNESMITH_STORE to another disk"),
    ],
)
def test_a_disk_that_does_not_take_it_is_told(tmp_path: Path, setting: str, told: str) -> None:
    store = open_store(tmp_path / "tunesmith.db")

    def break_it(connection: Any, _: Any) -> None:
        connection.execute(setting)

    event.listen(store._engine, "connect", break_it)
    with pytest.raises(Mistake, match=f"tunesmith.db: {told}"):
        store.start_run("reviews", "train", {"long": "x" * 100_000}, None, "runs/reviews")


def test_bad_addresses_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.db").write_text("not a database, long enough to be looked at as a page of one. " * 20)
    (tmp_path / "folder.db").mkdir()
    for where, told in {
        tmp_path / "none.db": "no store here; go to the project's folder",
        tmp_path / "text.db": "this is not a database",
        tmp_path / "folder.db": "got a folder; expected a database file",
        "mysql://localhost/x": "got mysql://; expected a file or postgresql://",
        "://": "no URL",
    }.items():
        with pytest.raises(Mistake, match=told):
            open_store(where, create=False)
    with pytest.raises(Mistake, match="its folder is not there; type `mkdir -p"):
        open_store(tmp_path / "deep" / "new.db")
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(Mistake, match=r"type `pip install 'tunesmith\[postgresql\]'`"):
        open_store("postgresql://localhost/x")


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    store = open_store(tmp_path / "tunesmith.db")
    with sqlite3.connect(tmp_path / "tunesmith.db") as connection:
        connection.execute("DROP TABLE evaluations")
    connection.close()
    start(store)
    with pytest.raises(Exception, match="no such table: evaluations") as caught:
        store.runs()
    assert not isinstance(caught.value, Mistake)


def test_importing_the_room_is_light() -> None:
    script = "import sys, tunesmith.store.open, tunesmith.store.rows; print({'sqlalchemy', 'alembic'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "set()"
