"""A run's row in the store: begun, measured, and ended the way it ended."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.config import Project
from tunesmith.core.errors import Mistake
from tunesmith.core.files import atomic_write, lock
from tunesmith.core.mixture import Mixture
from tunesmith.metrics._measure import Measurement
from tunesmith.models.identity import identity
from tunesmith.models.source import fetch
from tunesmith.recipes._work import Examples
from tunesmith.store.open import open_store
from tunesmith.store.store import Store

_KEY = "key.json"
_REMEDY = "choose another --output_dir"
_LEFT = ("artifact", "checkpoints", "rungs", "tasks")
_MAY_CHANGE = {"sweep", "model", "data", "rungs", "budget", "target", "shots", "output_dir"}
"""Keys of a task file under which a run may be gone on with: model and data count by their content."""


@dataclass(slots=True)
class Record:
    """An open run in the store. `peak_memory_mb` is told when it ends."""

    store: Store
    run: int
    folder: Path
    peak_memory_mb: float | None = None

    def measured(self, split: str, metrics: Mapping[str, Measurement], setting: Mapping[str, Any]) -> None:
        """Keep measurements made in one setting."""
        for one in metrics.values():
            self.store.record_evaluation(self.run, split, one.metric, one.value, one.low, one.high, one.n, setting)

    def left(self, kind: str, folder: Path, base: str) -> None:
        """Keep what the run left."""
        digest = hashlib.sha256()
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        for file in files:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
        size = sum(file.stat().st_size for file in files)
        self.store.record_artifact(self.run, kind, folder, digest.hexdigest(), size, base)


@contextmanager
def recorded(project: Project | Mixture, kind: str, folder: Path, examples: Examples) -> Iterator[Record]:
    """Keep a run in the store while the block makes it; the folder is this process's alone meanwhile.

    Writes `config.yaml`, from which the run can be repeated. Raises Mistake when another process is at the same folder,
    and when another run lies in it, which is then left as it was.
    """
    with lock(folder / ".lock", wait=False, remedy=_REMEDY):
        key = _key(project, kind, examples)
        _refuse_another(folder, key)
        atomic_write(folder / _KEY, json.dumps(key, ensure_ascii=False, indent=1) + "\n", remedy=_REMEDY)
        atomic_write(folder / "config.yaml", project.to_yaml(), remedy=_REMEDY)
        store = open_store()
        store.record_data_version(examples.version, sum(examples.counts().values()), _sources(project))
        run = store.start_run(
            _name(store, folder), kind, project.as_dict(), examples.version, folder, if_there="resume"
        )
        record, begun = Record(store, run, folder), time.monotonic()

        def end(status: Any, message: str = "") -> None:
            seconds = time.monotonic() - begun
            store.finish_run(run, status, seconds=seconds, peak_memory_mb=record.peak_memory_mb, message=message)

        try:
            yield record
        except KeyboardInterrupt:
            end("interrupted", "ctrl-C")
            raise
        except Exception as error:
            end("failed", str(error))
            raise
        end("finished")


def record_in(*folders: Path) -> Record | None:
    """The record of the run in the first of `folders` that has one, for what is measured after it has ended."""
    store = open_store()
    run = next((run for folder in folders if (run := store.run_in(folder)) is not None), None)
    return None if run is None else Record(store, run.id, Path(run.folder))


def _sources(project: Project | Mixture) -> dict[str, Any]:
    """Where the data came from, as the task file says it."""
    told = project.as_dict()
    return dict(told["data"]) if "data" in told else {one["name"]: one["data"] for one in told["tasks"]}


def _name(store: Store, folder: Path) -> str:
    """The folder's name, or as much more of its path as tells it from runs that lie elsewhere."""
    known = {run.name: Path(run.folder).absolute() for run in store.runs()}
    parts = folder.absolute().parts
    names = ("/".join(parts[-length:]) for length in range(1, len(parts)))
    return next(name for name in names if known.get(name, folder.absolute()) == folder.absolute())


def _key(project: Project | Mixture, kind: str, examples: Examples) -> dict[str, Any]:
    """What makes a run this one: under any other of these its parts cannot be compared or gone on with."""
    settings = {key: value for key, value in project.as_dict().items() if key not in _MAY_CHANGE}
    content = {"model": identity(fetch(project.as_dict()["model"])), "data": [examples.version, examples.counts()]}
    key = {"kind of run": kind, **content, **settings}
    return dict(json.loads(json.dumps(key)))


def _refuse_another(folder: Path, key: dict[str, Any]) -> None:
    kept = folder / _KEY
    if not kept.exists() or not any((folder / name).exists() for name in _LEFT):
        return
    there = json.loads(kept.read_text(encoding="utf-8"))
    if others := [name for name in key if key[name] != there.get(name)]:
        raise Mistake(
            f"{folder}: holds another run (other {', '.join(others)}); "
            "choose another --output_dir, or remove the folder to begin anew"
        )
