"""The tables, as SQLAlchemy sees them. Changing one needs a migration beside `migrations/versions/0001_first.py`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Double, ForeignKey, MetaData, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Moment(TypeDecorator[datetime]):
    """A time with its zone. SQLite keeps none, so UTC goes in and UTC comes out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """What all tables share: named constraints, which a later migration can then change."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Moment, float: Double, dict[str, Any]: JSON, str: Text}  # noqa: RUF012 - SQLAlchemy's own hook


class DataVersion(Base):
    """One content of the data."""

    __tablename__ = "data_versions"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    rows: Mapped[int]
    spec: Mapped[dict[str, Any]]
    created: Mapped[datetime]


class Run(Base):
    """One run."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    status: Mapped[str]
    config: Mapped[dict[str, Any]]
    config_hash: Mapped[str] = mapped_column(String(64))
    data_version: Mapped[str | None] = mapped_column(ForeignKey("data_versions.hash"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"))
    folder: Mapped[str]
    seconds: Mapped[float | None]
    peak_memory_mb: Mapped[float | None]
    message: Mapped[str]
    created: Mapped[datetime]
    finished: Mapped[datetime | None]
    host: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]

    parent: Mapped[Run | None] = relationship(remote_side=[id])
    evaluations: Mapped[list[Evaluation]] = relationship(order_by="Evaluation.id", passive_deletes=True)
    artifacts: Mapped[list[Artifact]] = relationship(order_by="Artifact.id", passive_deletes=True)


class Evaluation(Base):
    """One measurement of a run."""

    __tablename__ = "evaluations"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    split: Mapped[str]
    metric: Mapped[str]
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int]
    setting: Mapped[dict[str, Any]]
    setting_hash: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime]


class Artifact(Base):
    """One thing a run left on disk."""

    __tablename__ = "artifacts"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    folder: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    base: Mapped[str]
    created: Mapped[datetime]
