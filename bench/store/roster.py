"""Who works on what: campaigns, their workers, and what each worker has taken on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from bench.errors import BenchError
from bench.store.process import Process, Watch
from bench.store.retry import lasting
from bench.store.schema import Campaign, Failure, Lease, Run, Worker, now
from bench.store.store import Store

_SILENT = 10
RUNNING, LOST = "running", "lost"
ENDED = ("done", "failed", "interrupted", "cancelled", "stopped")
"""How a campaign ends: all is done; something failed; Ctrl-C; `bench cancel`; its budget was spent."""
STOP, CANCEL = "stop", "cancel"
"""What a campaign can be asked: to begin nothing new, or to drop what it does."""


@dataclass(frozen=True)
class WorkerRow:
    """One process of a campaign.

    Attributes:
        doing: in words; empty while it has nothing to do.
        amount, total: how much of that is done, in images or epochs.
        note: what came of it so far.
        device: where it computes.
        holds: how many cells it has taken on.
    """

    id: int
    process: Process
    doing: str
    amount: float
    total: float
    note: str
    device: str
    ended: bool
    beat: int
    seen: datetime
    holds: int = 0


@dataclass(frozen=True)
class CampaignRow:
    """One `bench run`.

    Attributes:
        state: `running`, one of `ENDED`, or `lost` where its process is gone.
        asked: `STOP`, `CANCEL` or nothing.
        cells: of its plan; `stored` of them were known when it began, `done` and `failed` since.
        seconds_left: as it judges.
        command: as typed.
    """

    id: int
    process: Process
    state: str
    asked: str
    cells: int
    stored: int
    done: int
    failed: int
    seconds_left: float | None
    beat: int
    created: datetime
    seen: datetime
    command: str
    workers: Sequence[WorkerRow] = field(default=())


@dataclass(frozen=True)
class FailureRow:
    """Why something failed: a cell, or a training by its weights' key."""

    key: str
    what: str
    error: str
    traceback: str
    created: datetime


class Roster:
    """The part of a store that says who works on what.

    Args:
        store: holds it.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.target = store, store.target

    @lasting
    def open_campaign(self, run: int, cells: int, stored: int) -> int:
        """A campaign of this process begins; returns its number."""
        own = Process.own()
        with self.store.writing() as session:
            row = Campaign(
                run_id=run, node=own.node, pid=own.pid, birth=own.birth, state=RUNNING, cells=cells, stored=stored
            )
            session.add(row)
            session.flush()
            return row.id

    @lasting
    def close_gone(self) -> None:
        """Campaigns whose processes are gone are over, which they could not say themselves."""
        with self.store.reading() as session:
            running = session.scalars(sa.select(Campaign).where(Campaign.state == RUNNING)).all()
        gone = [row.id for row in running if _process(row).is_gone()]
        if gone:
            with self.store.writing() as session:
                for row in session.scalars(sa.select(Campaign).where(Campaign.id.in_(gone), Campaign.state == RUNNING)):
                    self._close(session, row, LOST)

    @lasting
    def report(self, campaign: int, done: int, failed: int, seconds_left: float | None) -> str:
        """Say how far a campaign is; returns what it was asked."""
        with self.store.writing() as session:
            row = session.get_one(Campaign, campaign)
            row.done, row.failed, row.seconds_left = done, failed, seconds_left
            row.beat, row.seen = row.beat + 1, now()
            return row.asked

    @lasting
    def close_campaign(self, campaign: int, state: str) -> None:
        """A campaign has come to its end, one of `ENDED`."""
        with self.store.writing() as session:
            row = session.get_one(Campaign, campaign)
            row.seen = now()
            self._close(session, row, state)

    def _close(self, session: Session, row: Campaign, state: str) -> None:
        row.state, row.seconds_left = state, None
        ours = sa.select(Worker.id).where(Worker.campaign_id == row.id)
        session.execute(sa.delete(Lease).where(Lease.worker_id.in_(ours)))
        session.execute(sa.update(Worker).where(Worker.campaign_id == row.id).values(ended=True, doing=""))

    @lasting
    def join(self, campaign: int, run: int) -> int:
        """This process becomes a worker of a campaign; returns its number."""
        own = Process.own()
        with self.store.writing() as session:
            row = Worker(campaign_id=campaign, run_id=run, node=own.node, pid=own.pid, birth=own.birth)
            session.add(row)
            session.flush()
            return row.id

    @lasting
    def beat(self, worker: int, doing: str, amount: float, total: float, note: str) -> str:
        """A worker lives and says what it does; returns what its campaign was asked."""
        with self.store.writing() as session:
            row = session.get_one(Worker, worker)
            campaign = session.get_one(Campaign, row.campaign_id)
            row.doing, row.amount, row.total, row.note = doing[:400], amount, total, note[:200]
            row.beat, row.seen = row.beat + 1, now()
            # Who was given up and wakes has lost what it held, and no more than that.
            row.ended = campaign.state != RUNNING
            return campaign.asked

    @lasting
    def leave(self, worker: int) -> None:
        """A worker has ended, well or not: what it had taken on is free again."""
        with self.store.writing() as session:
            session.execute(sa.delete(Lease).where(Lease.worker_id == worker))
            session.execute(sa.update(Worker).where(Worker.id == worker).values(ended=True, doing="", seen=now()))

    @lasting
    def claim(self, worker: int, keys: Iterable[str], watch: Watch) -> dict[str, int]:
        """Take on cells or trainings, except those that a living worker has.

        Args:
            worker: who takes them.
            keys: of cells or weights.
            watch: says which of the others are lost.

        Returns:
            what is held by another: key -> that worker.
        """
        wanted = sorted(set(keys))
        with self.store.writing() as session:
            held: dict[str, int] = {}
            for start in range(0, len(wanted), 500):
                query = sa.select(Lease).where(Lease.key.in_(wanted[start : start + 500])).with_for_update()
                held |= {lease.key: lease.worker_id for lease in session.scalars(query)}
            lost = self._lost(session, set(held.values()) - {worker}, watch)
            for key in wanted:
                if key not in held:
                    session.execute(_insert(session, Lease).values(key=key, worker_id=worker).on_conflict_do_nothing())
                elif held[key] in lost:
                    session.execute(sa.update(Lease).where(Lease.key == key).values(worker_id=worker))
            if lost:
                session.execute(sa.update(Worker).where(Worker.id.in_(lost)).values(ended=True, doing=""))
            # Of two that find a key free at the same moment, PostgreSQL lets one insert it.
            others = sa.select(Lease).where(Lease.key.in_(wanted), Lease.worker_id != worker)
            others = others.execution_options(populate_existing=True)
            return {lease.key: lease.worker_id for lease in session.scalars(others)}

    @lasting
    def release(self, worker: int, keys: Collection[str]) -> None:
        """Give back what is done, or left undone."""
        with self.store.writing() as session:
            query = sa.delete(Lease).where(Lease.worker_id == worker, Lease.key.in_(list(keys)))
            session.execute(query)

    @lasting
    def campaigns(self, watch: Watch, *, active: bool) -> list[CampaignRow]:
        """Campaigns with their workers, the latest first.

        Args:
            watch: says which are lost.
            active: only those that have not ended; else the last hundred of all.
        """
        with self.store.reading() as session:
            query = sa.select(Campaign, Run.provenance).join(Run, Campaign.run_id == Run.id)
            if active:
                query = query.where(Campaign.state == RUNNING)
            found = session.execute(query.order_by(Campaign.id.desc()).limit(100)).all()
            workers = self._workers(session, [row.id for row, _ in found if row.state == RUNNING])
            return [_campaign(row, provenance, workers.get(row.id, []), watch) for row, provenance in found]

    @lasting
    def workers(self, campaign: int) -> list[WorkerRow]:
        """Who takes part in a campaign at the moment."""
        with self.store.reading() as session:
            return self._workers(session, [campaign]).get(campaign, [])

    @lasting
    def ask(self, campaign: int, what: str) -> None:
        """Ask something of a campaign, `STOP` or `CANCEL`, from anywhere.

        Raises:
            BenchError: there is no such campaign, or it has ended.
        """
        with self.store.writing() as session:
            row = session.get(Campaign, campaign)
            if row is None or row.state != RUNNING:
                problem = f"has ended already ({row.state})" if row else "is not there"
                raise BenchError(f"campaign {campaign} {problem}; see: bench status")
            row.asked = what

    @lasting
    def failures(self, prefix: str = "") -> list[FailureRow]:
        """What failed and has not succeeded since, oldest first."""
        with self.store.reading() as session:
            query = sa.select(Failure).where(Failure.key.startswith(prefix, autoescape=True))
            return [
                FailureRow(row.key, row.what, row.error, row.traceback, row.created)
                for row in session.scalars(query.order_by(Failure.created, Failure.key))
            ]

    @lasting
    def forget(self, prefix: str) -> int:
        """Forget failures whose keys begin so; returns how many."""
        with self.store.writing() as session:
            return session.execute(sa.delete(Failure).where(Failure.key.startswith(prefix, autoescape=True))).rowcount  # type: ignore[attr-defined, no-any-return]

    def _lost(self, session: Session, workers: Collection[int], watch: Watch) -> set[int]:
        rows = session.scalars(sa.select(Worker).where(Worker.id.in_(workers))).all() if workers else []
        return {row.id for row in rows if row.ended or watch.is_lost("worker", row.id, _process(row), row.beat)}

    def _workers(self, session: Session, campaigns: Sequence[int]) -> dict[int, list[WorkerRow]]:
        query = sa.select(Worker, Run.provenance).join(Run, Worker.run_id == Run.id)
        query = query.where(Worker.campaign_id.in_(campaigns), Worker.ended.is_(False)).order_by(Worker.id)
        found: dict[int, list[WorkerRow]] = {}
        for row, provenance in session.execute(query):
            # Those of cells; a training is called by its weights, `train:KEY`.
            cells = sa.select(sa.func.count()).select_from(Lease).where(Lease.key.not_like("%:%"))
            held = session.scalar(cells.where(Lease.worker_id == row.id))
            worker = WorkerRow(
                row.id, _process(row), row.doing, row.amount, row.total, row.note, str(provenance.get("device", "")),
                row.ended, row.beat, row.seen, held or 0,
            )  # fmt: skip
            found.setdefault(row.campaign_id, []).append(worker)
        return found


def _insert(session: Session, table: Any) -> Any:
    """An INSERT that can be told what to do about a row that is there already."""
    from sqlalchemy.dialects import postgresql, sqlite

    return (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert(table)


def _process(row: Campaign | Worker) -> Process:
    return Process(row.node, row.pid, row.birth)


def _campaign(row: Campaign, provenance: Mapping[str, Any], workers: Sequence[WorkerRow], watch: Watch) -> CampaignRow:
    # A look is too short to see whether a process elsewhere beats. What its clock says is good enough to be shown.
    seen = row.seen if row.seen.tzinfo else row.seen.replace(tzinfo=UTC)
    silent = (now() - seen).total_seconds() > _SILENT * watch.grace
    lost = row.state == RUNNING and (watch.is_lost("campaign", row.id, _process(row), row.beat) or silent)
    return CampaignRow(
        row.id, _process(row), LOST if lost else row.state, row.asked, row.cells, row.stored, row.done, row.failed,
        row.seconds_left, row.beat, row.created, row.seen, str(provenance.get("command", "")), workers,
    )  # fmt: skip
