"""From the tables' rows to the plain values that leave the room."""

from __future__ import annotations

from tunesmith.store import process
from tunesmith.store.rows import ArtifactRow, DataVersionRow, EvaluationRow, RunRow
from tunesmith.store.tables import Artifact, DataVersion, Evaluation, Run


def run_row(run: Run) -> RunRow:
    """A run with everything measured and left."""
    return RunRow(
        id=run.id,
        name=run.name,
        kind=run.kind,
        status=process.status_now(run.status, run.host),
        config=run.config,
        config_hash=run.config_hash,
        data_version=run.data_version,
        parent=run.parent.name if run.parent else None,
        folder=run.folder,
        seconds=run.seconds,
        peak_memory_mb=run.peak_memory_mb,
        message=run.message,
        created=run.created,
        finished=run.finished,
        host=run.host,
        versions=run.versions,
        evaluations=tuple(_evaluation_row(evaluation) for evaluation in run.evaluations),
        artifacts=tuple(_artifact_row(artifact) for artifact in run.artifacts),
    )


def data_version_row(version: DataVersion) -> DataVersionRow:
    """One content of the data."""
    return DataVersionRow(hash=version.hash, rows=version.rows, spec=version.spec, created=version.created)


def _evaluation_row(evaluation: Evaluation) -> EvaluationRow:
    return EvaluationRow(
        split=evaluation.split,
        metric=evaluation.metric,
        value=evaluation.value,
        low=evaluation.low,
        high=evaluation.high,
        n=evaluation.n,
        setting=evaluation.setting,
        created=evaluation.created,
    )


def _artifact_row(artifact: Artifact) -> ArtifactRow:
    return ArtifactRow(
        kind=artifact.kind,
        folder=artifact.folder,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        base=artifact.base,
        created=artifact.created,
    )
