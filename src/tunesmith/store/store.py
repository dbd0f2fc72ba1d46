"""What one can do with an open store. Every call is one transaction: whole or not at all, between processes too."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session, selectinload

from tunesmith.core.errors import Mistake, nearest
from tunesmith.core.machine import inspect
from tunesmith.store import comparison, process, read
from tunesmith.store.open import writing
from tunesmith.store.rows import Comparison, DataVersionRow, RunRow, Status
from tunesmith.store.tables import Artifact, DataVersion, Evaluation, Run

IfThere = Literal["refuse", "resume", "replace"]


class Store:
    """The project's database. Made by `open_store`; holds no connection between calls, so there is nothing to close."""

    def __init__(self, engine: Engine, mistakes: Callable[[], AbstractContextManager[None]]) -> None:
        self._engine, self._mistakes = engine, mistakes

    def start_run(
        self,
        name: str,
        kind: str,
        config: Mapping[str, Any],
        data_version: str | None,
        folder: Path | str,
        *,
        parent: str | None = None,
        if_there: IfThere = "refuse",
    ) -> int:
        """Note that a run begins, on this machine and in this process, and return its id.

        A name that is there already is a Mistake, unless ``if_there`` is "resume" (go on: what was measured is kept) or
        "replace" (begin anew: what was measured and left is forgotten; files are not touched). Also a Mistake: a run
        that a living process is making, resuming a run of another kind, a `data_version` or `parent` not in the store.
        """
        with self._write() as session:
            run = session.scalar(select(Run).where(Run.name == name))
            if run is None:
                run = Run(name=name, created=_now())
                session.add(run)
            else:
                _take_over(session, run, kind, if_there)
            run.kind, run.status, run.message, run.finished = kind, "running", "", None
            run.config, run.config_hash = dict(config), content_hash(config)
            run.data_version = None if data_version is None else _the_data_version(session, data_version).hash
            run.folder = str(folder)
            run.parent_id = None if parent is None else _the_run(session, parent).id
            looked = inspect(torch="torch" in sys.modules)
            run.host, run.versions = process.this_process(looked), looked.versions
            session.flush()
            return run.id

    def finish_run(
        self,
        run: int,
        status: Status = "finished",
        *,
        seconds: float | None = None,
        peak_memory_mb: float | None = None,
        message: str = "",
    ) -> None:
        """Note that a run ended: how, after how long (wall-clock, all its sittings), and why it failed if it did."""
        with self._write() as session:
            row = session.get_one(Run, run)
            row.status, row.message, row.finished = status, message, _now()
            row.seconds, row.peak_memory_mb = seconds, peak_memory_mb

    def record_data_version(self, content: str, rows: int, spec: Mapping[str, Any]) -> None:
        """Keep that the data with this content hash was seen, how many rows it has and where it came from.

        The same content again changes nothing: the first sight counts.
        """
        with self._write() as session:
            if session.get(DataVersion, content) is None:
                session.add(DataVersion(hash=content, rows=rows, spec=dict(spec), created=_now()))

    def record_evaluation(
        self,
        run: int,
        split: str,
        metric: str,
        value: float,
        low: float | None,
        high: float | None,
        n: int,
        setting: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep one measurement; measured again in the same setting, the new one takes its place.

        A value that is not a number is kept as None: there was a measurement and it gave nothing.
        """
        key = content_hash(setting or {})
        of_run = delete(Evaluation).where(Evaluation.run_id == run)
        same = of_run.where(Evaluation.split == split, Evaluation.metric == metric, Evaluation.setting_hash == key)
        with self._write() as session:
            session.execute(same)
            session.add(
                Evaluation(
                    run_id=run,
                    split=split,
                    metric=metric,
                    value=_number(value),
                    low=_number(low),
                    high=_number(high),
                    n=n,
                    setting=dict(setting or {}),
                    setting_hash=key,
                    created=_now(),
                )
            )

    def record_artifact(self, run: int, kind: str, folder: Path | str, sha256: str, bytes: int, base: str) -> None:
        """Keep what a run left: `kind` (adapter, merged …) in `folder`, belonging to the model `base`."""
        place = str(folder)
        with self._write() as session:
            session.execute(delete(Artifact).where(Artifact.run_id == run, Artifact.folder == place))
            session.add(
                Artifact(run_id=run, kind=kind, folder=place, sha256=sha256, bytes=bytes, base=base, created=_now())
            )

    def runs(self, kind: str | None = None) -> list[RunRow]:
        """Every run (of that kind), the newest first. A run whose process is dead is told as interrupted."""
        chosen = select(Run).options(*_WHOLE).order_by(Run.created.desc(), Run.id.desc())
        if kind is not None:
            chosen = chosen.where(Run.kind == kind)
        with self._read() as session:
            return [read.run_row(run) for run in session.scalars(chosen)]

    def run(self, name: str) -> RunRow:
        """One run. Raises Mistake with the nearest name when there is none."""
        with self._read() as session:
            return read.run_row(_the_run(session, name))

    def run_in(self, folder: Path) -> RunRow | None:
        """The run that is kept in `folder`, the newest should there be several; None where there is none."""
        return next((run for run in self.runs() if Path(run.folder).resolve() == folder.resolve()), None)

    def data_version(self, content: str) -> DataVersionRow:
        """The data with this content hash; a beginning of it will do. Raises Mistake when there is none, or several."""
        with self._read() as session:
            return read.data_version_row(_the_data_version(session, content))

    def compare(self, first: str, second: str) -> Comparison:
        """What differs between two runs: task file, data, metrics. Raises Mistake on a name that is not there."""
        with self._read() as session:
            runs = [read.run_row(_the_run(session, name)) for name in (first, second)]
            data = [
                read.data_version_row(session.get_one(DataVersion, run.data_version)) if run.data_version else None
                for run in runs
            ]
        return comparison.compare(runs[0], runs[1], data[0], data[1])

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with self._mistakes(), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with self._mistakes(), Session(writing(self._engine), autoflush=False) as session, session.begin():
            yield session


_WHOLE = (selectinload(Run.evaluations), selectinload(Run.artifacts), selectinload(Run.parent))


def content_hash(value: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of plain values, whatever the order of their keys. Raises ValueError on NaN."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _take_over(session: Session, run: Run, kind: str, if_there: IfThere) -> None:
    """Make an existing run ready to be run again, or say why not."""
    status = process.status_now(run.status, run.host)
    if status == "running" and process.lives(run.host) and not process.is_this_process(run.host):
        pid = run.host.get("pid")
        raise Mistake(f"run '{run.name}' is being made by process {pid}; wait for it, or choose another output_dir")
    if if_there == "refuse":
        raise Mistake(f"run '{run.name}' is there already ({run.kind}, {status}); choose another output_dir")
    if if_there == "resume" and run.kind != kind:
        raise Mistake(f"run '{run.name}' is a {run.kind} run; expected {kind}; choose another output_dir")
    if if_there == "replace":
        session.execute(delete(Evaluation).where(Evaluation.run_id == run.id))
        session.execute(delete(Artifact).where(Artifact.run_id == run.id))
        run.created, run.seconds, run.peak_memory_mb = _now(), None, None


def _the_run(session: Session, name: str) -> Run:
    run = session.scalar(select(Run).where(Run.name == name))
    if run is None:
        known = session.scalars(select(Run.name)).all()
        raise Mistake(f"there is no run '{name}'; {nearest(name, known) if known else 'none was made here yet'}")
    return run


def _the_data_version(session: Session, content: str) -> DataVersion:
    found = session.scalars(select(DataVersion).where(DataVersion.hash.startswith(content, autoescape=True))).all()
    if len(found) != 1:
        told = f"{len(found)} begin with '{content}'; type more of it" if found else f"there is none '{content}' here"
        raise Mistake(f"data versions: {told}")
    return found[0]


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def _now() -> datetime:
    return datetime.now(UTC)
