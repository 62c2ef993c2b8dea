"""The tables. A change here needs a migration in `migrations/versions`."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Double, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

HEAD = "0005"
"""The migration that produces these tables."""


def now() -> datetime:
    """The current time, UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Common metadata."""


class Run(Base):
    """One invocation that wrote results: its provenance."""

    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    provenance: Mapped[dict[str, Any]] = mapped_column(JSON)


class Weights(Base):
    """One trained or given set of weights."""

    __tablename__ = "weights"
    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    log: Mapped[list[Any]] = mapped_column(JSON)
    seconds: Mapped[float | None] = mapped_column(Double)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)

    __table_args__ = (Index("ix_weights_sha256", "sha256"),)


class Cell(Base):
    """One network under one attack, with its summary once all chunks are in."""

    __tablename__ = "cells"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    weights_key: Mapped[str] = mapped_column(ForeignKey("weights.key"))
    status: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[str | None] = mapped_column(String(16))
    dataset: Mapped[str] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(80))
    defense: Mapped[str] = mapped_column(String(200))
    seed: Mapped[int]
    attack: Mapped[str] = mapped_column(String(200))
    norm: Mapped[str] = mapped_column(String(8))
    eps: Mapped[str] = mapped_column(String(64))
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    n: Mapped[int]
    draws: Mapped[int]
    clean_hits: Mapped[float | None] = mapped_column(Double)
    robust_hits: Mapped[float | None] = mapped_column(Double)
    robust_any_hits: Mapped[float | None] = mapped_column(Double)
    worst_draw_hits: Mapped[int | None]
    majority_hits: Mapped[int | None]
    flags: Mapped[dict[str, int] | None] = mapped_column(JSON)
    findings: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)
    forwards: Mapped[int] = mapped_column(default=0)
    backwards: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(Double, default=0.0)
    error: Mapped[str | None] = mapped_column(Text)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    updated: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)

    # No index has a column that every chunk changes: PostgreSQL would then write to all of them with each.
    __table_args__ = (
        # Tables and counts: all that they choose and count by, so that no row is read for what is not shown.
        Index("ix_cells_table", "dataset", "model", "defense", "attack", "eps", "seed", "norm", "status", "verdict"),
        # What of a plan is missing: the primary key's index does not know what is finished.
        Index("ix_cells_done", "key", "status"),
        Index("ix_cells_created", "created"),
        Index("ix_cells_weights", "weights_key"),
    )


class Chunk(Base):
    """Packed per-image outcomes of consecutive test images, see `bench.outcome.Outcome`."""

    __tablename__ = "chunks"
    cell_key: Mapped[str] = mapped_column(ForeignKey("cells.key", ondelete="CASCADE"), primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    outcome: Mapped[bytes] = mapped_column(LargeBinary)


class Audit(Base):
    """What the audit of one network under one norm and budget found."""

    __tablename__ = "audits"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    weights_key: Mapped[str] = mapped_column(ForeignKey("weights.key"))
    model_hash: Mapped[str] = mapped_column(String(64))
    norm: Mapped[str] = mapped_column(String(8))
    eps: Mapped[str] = mapped_column(String(64))
    n: Mapped[int]
    version: Mapped[int]
    verdict: Mapped[str] = mapped_column(String(16))
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    seconds: Mapped[float] = mapped_column(Double)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)

    __table_args__ = (Index("ix_audits_network", "weights_key", "model_hash", "norm"),)
