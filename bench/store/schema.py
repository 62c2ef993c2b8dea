"""The tables. A change here needs a migration in `migrations/versions`."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Double, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

HEAD = "0006"
"""The migration that produces these tables."""

RUNNING, DONE, FAILED = "running", "done", "failed"
"""What becomes of a cell. A running one may have been left alone long ago; who is at it is said by leases."""

# SQLite's integers have 64 bits anyway, and PostgreSQL's 32.
_BIG = BigInteger().with_variant(Integer, "sqlite")


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
    seed: Mapped[int] = mapped_column(_BIG)
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
    forwards: Mapped[int] = mapped_column(_BIG, default=0)
    backwards: Mapped[int] = mapped_column(_BIG, default=0)
    seconds: Mapped[float] = mapped_column(Double, default=0.0)
    batch: Mapped[int | None]
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
    # Not a foreign key, which would want an index as long as this table; imported chunks have none.
    run_id: Mapped[int | None]


class Failure(Base):
    """Why a training or a cell last failed; it goes when the same thing succeeds."""

    __tablename__ = "failures"
    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    what: Mapped[str] = mapped_column(String(400))
    error: Mapped[str] = mapped_column(Text)
    traceback: Mapped[str] = mapped_column(Text)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)


class Campaign(Base):
    """One `bench run` as others see it while it works: how far it is, and whether it was asked to stop."""

    __tablename__ = "campaigns"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    node: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    birth: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(16))
    asked: Mapped[str] = mapped_column(String(8), default="")
    cells: Mapped[int]
    stored: Mapped[int]
    done: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    seconds_left: Mapped[float | None] = mapped_column(Double)
    beat: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    seen: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)

    __table_args__ = (Index("ix_campaigns_state", "state"),)


class Worker(Base):
    """One process that takes part in a campaign: what it does, and the beat that says it is alive."""

    __tablename__ = "workers"
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    node: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    birth: Mapped[str] = mapped_column(String(40))
    ended: Mapped[bool] = mapped_column(default=False)
    doing: Mapped[str] = mapped_column(String(400), default="")
    amount: Mapped[float] = mapped_column(Double, default=0.0)
    total: Mapped[float] = mapped_column(Double, default=0.0)
    note: Mapped[str] = mapped_column(String(200), default="")
    beat: Mapped[int] = mapped_column(default=0)
    seen: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)

    __table_args__ = (Index("ix_workers_campaign", "campaign_id"),)


class Lease(Base):
    """What a worker has taken on: a cell, or a training by its weights' key."""

    __tablename__ = "leases"
    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    worker_id: Mapped[int] = mapped_column(ForeignKey("workers.id"))

    __table_args__ = (Index("ix_leases_worker", "worker_id"),)


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


class Study(Base):
    """One search over the settings of a defense; its trials are cells on a held-out part of a training set."""

    __tablename__ = "studies"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    space: Mapped[dict[str, Any]] = mapped_column(JSON)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)


class Trial(Base):
    """One setting that a search tried. It is written once, when its cells are finished or cannot be."""

    __tablename__ = "trials"
    study_key: Mapped[str] = mapped_column(ForeignKey("studies.key", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    setting: Mapped[dict[str, Any]] = mapped_column(JSON)
    defense: Mapped[str] = mapped_column(String(400))
    cells: Mapped[list[str]] = mapped_column(JSON)
    error: Mapped[str | None] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
