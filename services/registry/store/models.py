"""Tables: one row per adapter, one row per thing that happened to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import DateTime, Dialect, ForeignKey, Index, String, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Status = Literal["candidate", "promoted", "retired", "rolled_back", "withdrawn"]
What = Literal["registered", "promoted", "retired", "rolled_back", "restored", "withdrawn"]


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every database; SQLite itself forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Tables(DeclarativeBase):
    """The registry's metadata. The migrations create it; a test keeps the two equal."""


class AdapterRow(Tables):
    """An adapter with an id. The candidate of one attempt has one row and one version, for ever."""

    __tablename__ = "adapters"
    __table_args__ = (
        UniqueConstraint("tenant", "run", "attempt", "adapter", name="uq_adapters_candidate"),
        UniqueConstraint("base_label", "task", "version", name="uq_adapters_version"),
        Index("ix_adapters_deployment", "tenant", "deployment", "status"),
    )

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))
    run: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    deployment: Mapped[str] = mapped_column(String(64))
    base_label: Mapped[str] = mapped_column(String(160))
    task: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    base: Mapped[str] = mapped_column(String(71))
    tokenizer: Mapped[str] = mapped_column(String(71))
    weights: Mapped[str] = mapped_column(String(71))
    adapter: Mapped[str] = mapped_column(String(71))
    card: Mapped[str] = mapped_column(String(71))
    """Digest of the signed card's envelope."""
    bundle: Mapped[str | None] = mapped_column(String(71))
    rollback: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class HistoryRow(Tables):
    """What happened to an adapter, when, by whom and why. Rows are only ever added."""

    __tablename__ = "history"
    __table_args__ = (UniqueConstraint("adapter_id", "what", "cause", name="uq_history_once"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    adapter_id: Mapped[str] = mapped_column(ForeignKey("adapters.id"), index=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    what: Mapped[str] = mapped_column(String(16))
    who: Mapped[str] = mapped_column(String(255))
    why: Mapped[str] = mapped_column(String(4000))
    cause: Mapped[str] = mapped_column(String(255))
    """Id of the event behind it: the same one is noted once."""
