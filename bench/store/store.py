"""Reading and writing results. Everything written is either complete or not there."""

import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from bench.audit.cell import judge_cell, majority_hits
from bench.audit.finding import Finding
from bench.audit.join import AuditRow, Network, hash_of_model, joined, relevant
from bench.errors import BenchError, ConflictingResultError, LeaseLostError
from bench.outcome import Flag, Outcome
from bench.secret import masked
from bench.statistics import Rate, wilson
from bench.store.engine import open_engine, options
from bench.store.problems import damaged, readable_errors
from bench.store.retry import lasting
from bench.store.schema import Audit, Cell, Chunk, Failure, Lease, Run, Weights, now
from bench.store.twins import is_imported, make_room
from bench.store.url import sqlite_file

if TYPE_CHECKING:
    import torch

    from bench.audit.spec import AuditSpec
    from bench.spec import CellSpec

_ERROR, _TRACEBACK = 2_000, 100_000
"""Characters that are kept of an error and of its traceback."""
RUNNING, DONE, FAILED = "running", "done", "failed"
_KEYS_A_QUERY = 1000
_MANY_KEYS, _KEYS_READ_FOR_ONE_FOUND = 20_000, 5
"""Looking up so many keys takes longer than to read all that are stored, unless there are so many times more."""
_FEW_WEIGHTS = 500
_MOST_SEEKS = 10_000


@dataclass(frozen=True)
class Summary:
    """The rates of one finished cell, each with n and a 95% Wilson interval.

    Attributes:
        clean: accuracy without attack.
        robust: correct without and under the attack's last iterate.
        robust_any: as robust, under the worse of the last and the strongest iterate on the attack's path.
        attack_success: share of the clean-correct images that the last iterate flips.
        worst_draw: images right in every scoring draw, with and without attack.
        majority: images right in more than half of the draws, with and without attack; None for cells stored
            before this was counted.
    """

    clean: Rate
    robust: Rate
    robust_any: Rate
    attack_success: Rate
    worst_draw: Rate
    majority: Rate | None = None


class Stored(Mapping[str, Any]):
    """A JSON object of the store, read when it is looked into: a list of a million cells needs the spec of none.

    Args:
        text: as it is stored.
        target: the store, for its errors.
    """

    __slots__ = ("_target", "_text", "_value")

    def __init__(self, text: str, target: str) -> None:
        self._text: str | None = text
        self._target = target

    @property
    def value(self) -> dict[str, Any]:
        """The object.

        Raises:
            StoreError: it is none.
        """
        if self._text is not None:
            try:
                self._value: dict[str, Any] = json.loads(self._text)
            except ValueError as error:
                raise damaged(self._target, f"the specification of a cell: {error}") from error
            self._text = None
        return self._value

    def __getitem__(self, name: str) -> Any:
        return self.value[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.value | dict(other)

    def __repr__(self) -> str:
        return repr(self.value)


class Names(NamedTuple):
    """What cells are called that differ in their seeds and budgets at most."""

    dataset: str
    model: str
    defense: str
    attack: str


class Kind(NamedTuple):
    """Cells that agree in what they are called and in what came of them.

    Attributes:
        verdict: their own, before any audit of the network.
        cells: how many.
    """

    dataset: str
    model: str
    defense: str
    attack: str
    status: str
    verdict: str | None
    cells: int


@dataclass(frozen=True)
class CellRow:
    """A stored cell as reports see it.

    Attributes:
        verdict: the worse of the cell's own and what the audit of its network says about such a cell.
        batch: how many images at once fitted into memory, where that was less than a chunk.
        findings: what is behind the verdict: the cell's own, then the audit's that concern it. None for cells
            stored before findings were kept.
        audit: the audit of the same weights, model and norm; None if there was none.
    """

    key: str
    status: str
    verdict: str | None
    dataset: str
    model: str
    defense: str
    seed: int
    attack: str
    norm: str
    eps: str
    n: int
    draws: int
    flags: Mapping[str, int]
    forwards: int
    backwards: int
    seconds: float
    error: str | None
    weights_key: str
    spec: Mapping[str, Any]
    updated: datetime
    summary: Summary | None
    findings: tuple[Finding, ...] | None = None
    audit: AuditRow | None = None
    batch: int | None = None

    @property
    def stops_early(self) -> bool:
        """Whether its attack left images alone once they were broken, so that there is no last iterate to speak of."""
        return bool(dict(self.spec["attack"].get("params", ())).get("early_stop"))


_OWN = ("summary", "flags", "verdict", "findings", "audit", "spec")
_SHARED = tuple(name for name in CellRow.__dataclass_fields__ if name not in _OWN)
_HITS = (Cell.clean_hits, Cell.robust_hits, Cell.robust_any_hits, Cell.worst_draw_hits, Cell.majority_hits)
# JSON comes as text: most of it is read by nobody, or is the same in many rows.
_TEXTS = (sa.cast(column, sa.Text).label(column.key) for column in (Cell.spec, Cell.flags, Cell.findings))
_READ = (*(getattr(Cell, name) for name in _SHARED), Cell.verdict, *_HITS, *_TEXTS)


class Store:
    """An open database.

    Args:
        target: path of an SQLite file, or an SQLAlchemy URL.
        reading: nothing will be written, so a file that cannot be is no obstacle.

    Attributes:
        target: how it may be shown: a password in the URL is not in it.
        url: what opens it again, in another process too. Not to be shown.
        file: of an SQLite store; None of another database.

    Raises:
        BenchError: it cannot be opened, or is not ours.
    """

    def __init__(self, target: str | Path, *, reading: bool = False) -> None:
        self.target, self.url, self.file = masked(str(target)), str(target), sqlite_file(target)
        self.engine = open_engine(target, reading=reading)

    def close(self) -> None:
        """Release the file."""
        self.engine.dispose()

    @lasting
    def begin_run(self, provenance: dict[str, Any]) -> int:
        """Record an invocation; returns its id."""
        with self.writing() as session:
            run = Run(provenance=provenance)
            session.add(run)
            session.flush()
            return run.id

    @lasting
    def record_weights(
        self, key: str, sha256: str, spec: dict[str, Any], log: Sequence[Any], seconds: float | None, run: int
    ) -> None:
        """Record a set of weights that is at hand; doing it again with the same bits changes nothing.

        Other bits that were imported under the key are set apart, see `bench.store.twins`.

        Raises:
            ConflictingResultError: other weights were trained here under the key, so new cells would not belong to the
                old ones.
        """
        with self.writing() as session:
            session.execute(sa.delete(Failure).where(Failure.key == key))
            make_room(session, key, sha256, spec)
            held = session.get(Weights, key)
            if held is None:
                session.add(Weights(key=key, sha256=sha256, spec=spec, log=list(log), seconds=seconds, run_id=run))
            elif held.sha256 != sha256:
                raise ConflictingResultError(
                    f"training {key[:18]} gave weights {sha256[:12]} now and {held.sha256[:12]} when its stored "
                    "results were measured (another device or library version?); "
                    "keep them apart with another --results folder"
                )
            elif is_imported(session, held):
                # The same bits, and they are ours as well from now on.
                held.spec, held.log, held.seconds, held.run_id = spec, list(log), seconds, run

    @lasting
    def begin_cell(self, cell: "CellSpec", run: int) -> frozenset[int]:
        """Make a cell known and say which of its chunks are already stored."""
        key = _key_of(cell)
        with self.writing() as session:
            row = session.get(Cell, key)
            if row is None:
                session.add(
                    Cell(
                        key=key,
                        weights_key=cell.weights,
                        status=RUNNING,
                        dataset=cell.dataset,
                        model=cell.model.name,
                        defense=cell.defense_name,
                        seed=cell.seed,
                        attack=cell.attack.name,
                        norm=cell.attack.norm,
                        eps=str(cell.attack.eps),
                        spec=_identity_of(cell),
                        n=cell.n,
                        draws=cell.draws,
                        run_id=run,
                    )
                )
            elif row.status != DONE:
                row.status, row.error, row.run_id, row.updated = RUNNING, None, run, now()
            return frozenset(session.scalars(sa.select(Chunk.start).where(Chunk.cell_key == key)))

    @lasting
    def add_chunks(
        self,
        start: int,
        outcomes: "Mapping[CellSpec, Outcome]",
        forwards: int,
        backwards: int,
        seconds: float,
        *,
        run: int | None = None,
        worker: int | None = None,
        batch: int | None = None,
    ) -> None:
        """Store one chunk of every cell that an attack run serves, in one transaction.

        The cost is the run's; it is divided evenly among the cells it served. A
        chunk that is already there with the same decisions is left alone.

        Args:
            start: index of the first image.
            outcomes: by cell.
            forwards, backwards, seconds: what they cost.
            run: invocation that measured them.
            worker: who has taken on the cells, see `bench.store.roster`; None where nobody else may.
            batch: how many images at once fitted into memory, where that was less than a chunk.

        Raises:
            ConflictingResultError: a chunk is there with other outcomes.
            LeaseLostError: the worker was given up meanwhile, and another has the cells.
        """
        with self.writing() as session:
            if worker is not None:
                self._check_lease(session, worker, [_key_of(cell) for cell in outcomes])
            for cell, outcome in outcomes.items():
                key, packed = _key_of(cell), outcome.pack()
                held = session.get(Chunk, (key, start))
                known = session.get(Cell, key)
                # An import may have finished the cell meanwhile; its one chunk is all of the cell.
                whole = self._outcome(session, key) if known is not None and known.status == DONE else None
                before = whole.part(start, outcome.n) if whole else Outcome.unpack(held.outcome) if held else None
                if before is not None:
                    if not before.agrees_with(outcome):
                        raise ConflictingResultError(_conflict(key, start, before, outcome))
                    continue
                session.add(Chunk(cell_key=key, start=start, n=outcome.n, outcome=packed, run_id=run))
                row = session.get_one(Cell, key)
                row.batch = batch or row.batch
                row.forwards += round(forwards / len(outcomes))
                row.backwards += round(backwards / len(outcomes))
                row.seconds += seconds / len(outcomes)
                row.updated = now()

    @lasting
    def finish_cell(self, cell: "CellSpec") -> CellRow:
        """Summarise a cell whose chunks are all stored.

        Raises:
            BenchError: chunks are missing.
        """
        key = _key_of(cell)
        with self.writing() as session:
            outcome = self._outcome(session, key)
            if outcome is None or outcome.n != cell.n:
                raise BenchError(f"cell {key[:12]} has {outcome.n if outcome else 0} of {cell.n} images; run it again")
            row = session.get_one(Cell, key)
            summarise(row, outcome, cell.model.num_classes)
            session.execute(sa.delete(Failure).where(Failure.key == key))
            session.flush()
            return self._rows(session, Cell.key == key)[0]

    @lasting
    def fail_cell(self, cell: "CellSpec", error: str, traceback: str = "") -> None:
        """Record why a cell could not be finished. Its chunks stay."""
        with self.writing() as session:
            row = session.get(Cell, _key_of(cell))
            if row is not None and row.status != DONE:
                row.status, row.error, row.updated = FAILED, _storable(error, _ERROR), now()
                what = f"{row.defense} (seed {row.seed}) under {row.attack} at eps {row.eps}"
                self._record_failure(session, row.key, what, error, traceback, row.run_id)

    @lasting
    def fail_training(self, key: str, what: str, error: str, traceback: str, run: int) -> None:
        """Record why weights could not be trained or loaded."""
        with self.writing() as session:
            self._record_failure(session, key, what, error, traceback, run)

    def _record_failure(self, session: Session, key: str, what: str, error: str, traceback: str, run: int) -> None:
        texts = {"what": _storable(what, 400), "error": _storable(error, _ERROR)}
        failure = Failure(key=key, **texts, traceback=_storable(traceback, _TRACEBACK), run_id=run, created=now())
        session.merge(failure)

    def _check_lease(self, session: Session, worker: int, keys: Sequence[str]) -> None:
        query = sa.select(Lease.key).where(Lease.worker_id == worker, Lease.key.in_(keys)).with_for_update()
        if len(session.scalars(query).all()) != len(keys):
            raise LeaseLostError("another worker took over what this one was given up on; its results will be used")

    @lasting
    def done_keys(self, keys: Iterable[str]) -> set[str]:
        """Which of the given cells are finished; millions may be asked about, and no row is loaded."""
        wanted, found = sorted(set(keys)), set[str]()
        finished = sa.select(Cell.key).where(Cell.status == DONE)
        with self.reading() as session:
            if len(wanted) >= _MANY_KEYS:
                stored = session.scalar(sa.select(sa.func.count()).select_from(finished.subquery())) or 0
                if len(wanted) * _KEYS_READ_FOR_ONE_FOUND >= stored:
                    return set(wanted).intersection(session.scalars(finished))
            # In order, so that neighbours are found on one page of the index.
            for part in _parts(wanted):
                found.update(session.scalars(finished.where(Cell.key.in_(part))))
        return found

    @lasting
    def done(self, keys: Iterable[str]) -> dict[str, CellRow]:
        """Those of the given cells that are finished."""
        found = dict[str, CellRow]()
        with self.reading() as session:
            for part in _parts(list(keys)):
                rows = self._rows(session, Cell.key.in_(part), Cell.status == DONE)
                found |= {row.key: row for row in rows}
        return found

    @lasting
    def fitting(self, device: "torch.device") -> dict[tuple[str, str, int], int]:
        """How many images at once fitted into a device's memory, where that was less than a chunk.

        Returns:
            by key of the model, family of the attack and its `eot`.
        """
        from bench.provenance import device_name

        with self.reading() as session:
            query = sa.select(Cell.spec, Cell.batch, Run.provenance).join(Run, Cell.run_id == Run.id)
            rows = session.execute(query.where(Cell.batch.is_not(None)).order_by(Cell.updated.desc()).limit(500)).all()
        return {
            (hash_of_model(spec["model"]), spec["attack"]["family"], spec["attack"].get("eot", 1)): batch
            for spec, batch, provenance in reversed(rows)
            if batch is not None and provenance.get("device") == device_name(device)
        }

    @lasting
    def cells(self, /, **equal: Any) -> list[CellRow]:
        """All stored cells, oldest first, whose columns equal the given values.

        Args:
            equal: a value for a column, or a list of those that it may have; None does not choose.
        """
        wanted = {name: value for name, value in equal.items() if value is not None}
        with self.reading() as session:
            if {*wanted} - {"status", "key", "weights_key"}:
                wanted |= _along_the_index(session, wanted)
            where = [_is(getattr(Cell, name), value) for name, value in wanted.items()]
            return self._rows(session, *where, order=(Cell.created, Cell.key))

    @lasting
    def names(self, status: str | None = DONE) -> list[Names]:
        """What the stored cells are called.

        Args:
            status: of the cells that count; None for all.
        """
        query = sa.select(Cell.dataset, Cell.model, Cell.defense, Cell.attack).distinct()
        with self.reading() as session:
            found = session.execute(query if status is None else query.where(Cell.status == status)).all()
        return sorted(map(Names._make, found))

    @lasting
    def kinds(self, status: str | None = DONE, keys: Iterable[str] | None = None) -> list[Kind]:
        """What there is of every dataset, model, defense and attack, with the number of cells, without loading a cell.

        Args:
            status: of the cells that count; None for all.
            keys: of the cells that count; all if not given.
        """
        columns = (Cell.dataset, Cell.model, Cell.defense, Cell.attack, Cell.status, Cell.verdict)
        query = sa.select(*columns, sa.func.count()).group_by(*columns)
        query = query if status is None else query.where(Cell.status == status)
        asked = [query] if keys is None else [query.where(Cell.key.in_(part)) for part in _parts(sorted(set(keys)))]
        counts = Counter[Any]()
        with self.reading() as session:
            for part in asked:
                counts.update({tuple(kind): count for *kind, count in session.execute(part)})
        kinds = [Kind._make((*kind, count)) for kind, count in counts.items()]
        return sorted(kinds, key=lambda kind: tuple(map(str, kind)))

    @lasting
    def cell(self, prefix: str) -> CellRow:
        """The one cell whose key begins with `prefix`.

        Raises:
            BenchError: none, or several.
        """
        with self.reading() as session:
            # LIKE alone would read every key: which letters it takes for equal is another order than the index has.
            prefix = prefix.lower()
            near = Cell.key.between(prefix, prefix + "g"), Cell.key.startswith(prefix, autoescape=True)
            rows = self._rows(session, *near, limit=2)
            if len(rows) != 1 or not prefix:
                problem = "no stored cell begins" if not rows else "several stored cells begin"
                raise BenchError(f"{problem} with '{prefix}'; see: bench ls runs")
            return rows[0]

    @lasting
    def record_audit(
        self, spec: "AuditSpec", verdict: str, findings: Sequence[Finding], seconds: float, run: int
    ) -> None:
        """Keep what an audit found; an audit that is there already stays as it is."""
        key = _key_of(spec)
        with self.writing() as session:
            if session.get(Audit, key) is None:
                stored = [finding.as_json() for finding in findings]
                session.add(
                    Audit(
                        key=key,
                        weights_key=spec.weights,
                        model_hash=hash_of_model(_identity_of(spec.model)),
                        norm=spec.norm,
                        eps=str(spec.eps),
                        n=spec.n,
                        version=spec.version,
                        verdict=verdict,
                        findings=stored,
                        seconds=seconds,
                        run_id=run,
                    )
                )

    @lasting
    def audit(self, spec: "AuditSpec") -> AuditRow | None:
        """The stored audit of exactly this key."""
        with self.reading() as session:
            row = session.get(Audit, _key_of(spec))
            return _audit(row) if row is not None else None

    @lasting
    def outcome(self, key: str) -> Outcome | None:
        """The per-image outcomes stored for a cell so far, in image order."""
        with self.reading() as session:
            return self._outcome(session, key)

    @lasting
    def weights(self, key: str) -> dict[str, Any] | None:
        """What is recorded of a set of weights."""
        with self.reading() as session:
            row = session.get(Weights, key)
            if row is None:
                return None
            return {"key": row.key, "sha256": row.sha256, "spec": row.spec, "log": row.log, "seconds": row.seconds}

    @lasting
    def trained(self) -> dict[str, dict[str, Any]]:
        """What is recorded of every set of weights, by key: `sha256`, `spec` and `seconds`."""
        with self.reading() as session:
            query = sa.select(Weights.key, Weights.sha256, Weights.spec, Weights.seconds)
            return {
                key: {"sha256": sha256, "spec": spec, "seconds": seconds}
                for key, sha256, spec, seconds in session.execute(query)
            }

    @lasting
    def origins(self, keys: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """The provenance of the run that last worked on each cell, by key.

        Args:
            keys: of the cells that are of interest; all if not given.
        """
        query = sa.select(Cell.key, Cell.run_id)
        with self.reading() as session:
            if keys is None:
                found = dict(session.execute(query).all())
            else:
                parts = map(query.where, (Cell.key.in_(part) for part in _parts(list(keys))))
                found = {key: run for part in parts for key, run in session.execute(part)}
            runs = {run.id: run.provenance for run in session.scalars(sa.select(Run))}
        return {key: runs[run] for key, run in found.items()}

    @lasting
    def provenance(self, key: str) -> dict[str, Any]:
        """The provenance of the run that last worked on a cell."""
        with self.reading() as session:
            query = sa.select(Run).join(Cell, Cell.run_id == Run.id).where(Cell.key == key)
            run = session.scalars(query).one()
            return {"run": run.id, "started": run.created.isoformat(), **run.provenance}

    @lasting
    def shares(self, key: str) -> list[tuple[int, int, dict[str, Any] | None]]:
        """Which run measured which chunk of a cell: a run that was cut off is continued by another, maybe elsewhere.

        Returns:
            index of the first image, number of images, provenance (None where it was not kept or is an import's).
        """
        with self.reading() as session:
            query = sa.select(Chunk.start, Chunk.n, Run).join(Run, Chunk.run_id == Run.id, isouter=True)
            return [
                (start, n, {"run": run.id, "started": run.created.isoformat(), **run.provenance} if run else None)
                for start, n, run in session.execute(query.where(Chunk.cell_key == key).order_by(Chunk.start))
            ]

    @lasting
    def costs(self, device: str) -> list[tuple[Mapping[str, Any], int, int, float]]:
        """(model identity, forwards, backwards, seconds) of cells finished on a device, those begun last first.

        Args:
            device: its name as in the provenance.
        """
        with self.reading() as session:
            query = sa.select(Cell.spec, Cell.forwards, Cell.backwards, Cell.seconds, Run.provenance)
            query = query.join(Run, Cell.run_id == Run.id).where(Cell.status == DONE, Cell.backwards > 0)
            rows = session.execute(query.order_by(Cell.created.desc()).limit(500))
            return [
                (spec["model"], forwards, backwards, seconds)
                for spec, forwards, backwards, seconds, provenance in rows
                if provenance.get("device") == device
            ]

    def _rows(
        self, session: Session, *where: Any, order: Sequence[Any] = (), limit: int | None = None
    ) -> list[CellRow]:
        """Cells as reports see them, each with the audit of its network."""
        cells = session.execute(sa.select(*_READ).where(*where).order_by(*order).limit(limit)).all()
        audits, bits = _audits_of(session, {cell.weights_key for cell in cells})
        return [_row(cell, audits, bits, self.target) for cell in cells]

    def _outcome(self, session: Session, key: str) -> Outcome | None:
        query = sa.select(Chunk).where(Chunk.cell_key == key).order_by(Chunk.start)
        try:
            parts = [Outcome.unpack(chunk.outcome) for chunk in session.scalars(query)]
        except ValueError as error:
            raise damaged(self.target, f"cell {key[:12]}: {error}") from error
        return Outcome.concatenate(parts) if parts else None

    def writing(self) -> "_Transaction":
        """One transaction that may write: all of it is kept, or nothing."""
        return _Transaction(self, reading=False)

    def reading(self) -> "_Transaction":
        """One transaction that sees one state of the store."""
        return _Transaction(self, reading=True)


def summarise(row: Cell, outcome: Outcome, classes: int) -> None:
    """Fill in what follows from a cell's outcomes: counts, flags, verdict and findings; the cell is done then."""
    flags = {flag.name or "": int((outcome.flags & flag != 0).sum()) for flag in Flag if flag != Flag.UNWATCHED}
    row.clean_hits = float(outcome.clean.mean(1).sum())
    row.robust_hits = float(outcome.robust_last.sum())
    row.robust_any_hits = float(outcome.robust_any.sum())
    row.worst_draw_hits = int((outcome.clean & outcome.last).all(1).sum())
    row.flags = {name: count for name, count in flags.items() if count}
    row.majority_hits = majority_hits(outcome)
    judged = judge_cell(outcome, classes, gradients=row.backwards > 0)
    row.verdict, row.findings = judged.verdict, [finding.as_json() for finding in judged.findings]
    row.status, row.updated = DONE, now()


class _Transaction:
    """One session in one transaction, committed on success, rolled back on any error."""

    def __init__(self, store: Store, *, reading: bool) -> None:
        self.errors = readable_errors(store.target)
        self.session = Session(
            store.engine.execution_options(**options(store.engine, reading=reading)), expire_on_commit=False
        )

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        with self.errors, self.session:
            if error is None:
                self.session.commit()
            else:
                self.session.rollback()
                raise error


def _parts(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _KEYS_A_QUERY):
        yield keys[start : start + _KEYS_A_QUERY]


def _is(column: Any, value: Any) -> Any:
    return column.in_(list(value)) if isinstance(value, list | tuple | Set) else column == value


def _along_the_index(session: Session, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions that change nothing and let an index be used whose first columns were not chosen by.

    Its first columns have few values, so they are all named, where that is not too many.
    """
    names = ("dataset", "model", "defense", "attack")
    kinds = session.execute(sa.select(*(getattr(Cell, name) for name in names)).distinct()).all()
    for at, name in enumerate(names):
        if name in wanted:
            given = wanted[name]
            among = set(given) if isinstance(given, list | tuple | Set) else {given}
            kinds = [kind for kind in kinds if kind[at] in among]
    values = {name: sorted({kind[at] for kind in kinds}) for at, name in enumerate(names)}
    if math.prod(map(len, values.values())) > _MOST_SEEKS:
        return {}
    return values


def _audits_of(session: Session, weights: set[str]) -> tuple[dict[Network, list[AuditRow]], dict[str, str]]:
    """The audits of some weights, oldest first, and what bits all of these are."""
    audits: dict[Network, list[AuditRow]] = {}
    if not weights or session.scalar(sa.select(Audit.key).limit(1)) is None:
        return {}, {}
    known = sa.select(Weights.key, Weights.sha256)
    # By their bits: one set of weights may be known under several keys.
    query = sa.select(Audit, Weights.sha256).join(Weights, Audit.weights_key == Weights.key)
    few = len(weights) <= _FEW_WEIGHTS
    bits = dict(session.execute(known.where(Weights.key.in_(weights)) if few else known).all())
    query = query.where(Weights.sha256.in_(set(bits.values()))) if few else query
    for row, sha256 in session.execute(query.order_by(Audit.created)):
        audits.setdefault(Network(sha256, row.model_hash, row.norm), []).append(_audit(row))
    audited = {network.sha256 for network in audits}
    return audits, {key: sha256 for key, sha256 in bits.items() if sha256 in audited}


def _row(cell: Any, audits: Mapping[Network, Sequence[AuditRow]], bits: Mapping[str, str], target: str) -> CellRow:
    summary, verdict, audit = None, cell.verdict, None
    findings, spec = _findings(cell.findings), Stored(cell.spec, target)
    if cell.status == DONE:
        assert cell.clean_hits is not None and cell.robust_hits is not None and cell.verdict is not None
        assert cell.robust_any_hits is not None and cell.worst_draw_hits is not None
        correct = round(cell.clean_hits, 9)
        summary = Summary(
            wilson(cell.clean_hits, cell.n),
            wilson(cell.robust_hits, cell.n),
            wilson(cell.robust_any_hits, cell.n),
            _success_rate(correct, correct - cell.robust_hits),
            wilson(cell.worst_draw_hits, cell.n),
            wilson(cell.majority_hits, cell.n) if cell.majority_hits is not None else None,
        )
        if cell.weights_key in bits:
            network = Network(bits[cell.weights_key], hash_of_model(spec["model"]), cell.norm)
            audit = relevant(audits.get(network, ()), cell.eps)
        if audit is not None:
            verdict, findings = joined(cell.verdict, findings, audit, spec)
    shared = dict(zip(_SHARED, cell, strict=False))
    flags = json.loads(cell.flags or "null") or {}
    return CellRow(**shared, spec=spec, verdict=verdict, flags=flags, summary=summary, findings=findings, audit=audit)


@functools.lru_cache(maxsize=4096)
def _findings(text: str | None) -> tuple[Finding, ...] | None:
    """Thousands of cells have the same."""
    found = json.loads(text or "null")
    return None if found is None else tuple(Finding.of_json(data) for data in found)


def _audit(row: Audit) -> AuditRow:
    return AuditRow(
        row.key,
        row.eps,
        row.n,
        row.version,
        row.verdict,
        tuple(Finding.of_json(data) for data in row.findings),
        row.seconds,
        row.created,
    )


def _storable(text: str, most: int) -> str:
    """Anybody's error message as a text that every database keeps, and nobody minds to read."""
    # Lone surrogates are no text, and PostgreSQL keeps no NUL.
    plain = text.encode("utf-8", "replace").decode().replace("\0", "")
    half = most // 2 - 10
    return plain if len(plain) <= most else f"{plain[:half]} [...] {plain[-half:]}"


def _key_of(spec: Any) -> str:
    from bench.spec import key_of  # imports torch, so only for who brings a spec, and has it anyway

    return key_of(spec)


def _identity_of(spec: Any) -> Any:
    from bench.spec import identity_of

    return identity_of(spec)


def _success_rate(correct: float, flipped: float) -> Rate:
    """Flipped out of correct; with several draws `correct` is an expectation and its interval uses the whole part."""
    n = int(correct)
    if n == 0:
        return wilson(0, 0)
    rate = wilson(min(max(flipped, 0.0) * n / correct, n), n)
    return rate._replace(hits=flipped)


def _conflict(key: str, start: int, held: Outcome, new: Outcome) -> str:
    def shown(outcome: Outcome) -> str:
        return f"clean {outcome.clean.mean():.4f}, robust {outcome.robust_last.mean():.4f}"

    differing = int((held.last != new.last).any(1).sum()) if held.last.shape == new.last.shape else held.n
    return (
        f"cell {key[:12]}, images {start} to {start + held.n - 1}: a second measurement differs from the stored one "
        f"({shown(held)} stored; {shown(new)} now; {differing} images differ under attack); nothing was overwritten"
    )
