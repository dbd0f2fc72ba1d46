"""A run's row in the store: begun, measured, and ended the way it ended."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.config import Project
from tunesmith.core.files import atomic_write, lock
from tunesmith.metrics._measure import Measurement
from tunesmith.recipes._work import Examples
from tunesmith.store.open import open_store
from tunesmith.store.store import Store


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
def recorded(project: Project, kind: str, folder: Path, examples: Examples) -> Iterator[Record]:
    """Keep a run in the store while the block makes it; the folder is this process's alone meanwhile.

    Writes `config.yaml`, from which the run can be repeated. Raises Mistake when another process is at the same folder.
    """
    with lock(folder / ".lock", wait=False, remedy="choose another --output_dir"):
        atomic_write(folder / "config.yaml", project.to_yaml())
        store = open_store()
        store.record_data_version(
            examples.version, sum(examples.counts().values()), project.data.model_dump(mode="json")
        )
        run = store.start_run(folder.name, kind, project.as_dict(), examples.version, folder, if_there="resume")
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
