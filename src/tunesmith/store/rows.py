"""What comes out of the store: plain frozen values, safe to keep when the database is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Status = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class DataVersionRow:
    """One content of the data: `hash` names it, `spec` says where it came from."""

    hash: str
    rows: int
    spec: Mapping[str, Any]
    created: datetime


@dataclass(frozen=True)
class EvaluationRow:
    """One measurement: a metric on `n` rows of a split with its 95 % interval; `setting` says of what (rung, shots)."""

    split: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    setting: Mapping[str, Any]
    created: datetime


@dataclass(frozen=True)
class ArtifactRow:
    """Something a run left on disk; `base` says which model it belongs to."""

    kind: str
    folder: str
    sha256: str
    bytes: int
    base: str
    created: datetime


@dataclass(frozen=True)
class RunRow:
    """A run: what was done, with what, on what, how long it took and what came of it.

    `seconds` is wall-clock, `peak_memory_mb` in 10^6 bytes, `parent` another run's name, `message` why it failed.
    """

    id: int
    name: str
    kind: str
    status: Status
    config: Mapping[str, Any]
    config_hash: str
    data_version: str | None
    parent: str | None
    folder: str
    seconds: float | None
    peak_memory_mb: float | None
    message: str
    created: datetime
    finished: datetime | None
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    evaluations: tuple[EvaluationRow, ...]
    artifacts: tuple[ArtifactRow, ...]


@dataclass(frozen=True)
class ConfigChange:
    """A key of the task file that differs; None where a run does not have it."""

    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class MetricChange:
    """One metric of both runs. `difference` is second - first; `apart` says that the two intervals do not meet.

    Both are None where one of the runs was not measured so.
    """

    split: str
    metric: str
    first: EvaluationRow | None
    second: EvaluationRow | None
    difference: float | None
    apart: bool | None


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side. `data` holds both data versions when they differ, and is None when they are the same."""

    first: RunRow
    second: RunRow
    config: tuple[ConfigChange, ...]
    data: tuple[DataVersionRow | None, DataVersionRow | None] | None
    metrics: tuple[MetricChange, ...]
