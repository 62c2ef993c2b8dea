"""Reading and writing results. Everything written is either complete or not there."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from bench.audit.cell import judge_cell, majority_hits
from bench.audit.finding import Finding
from bench.audit.join import AuditRow, hash_of_model
from bench.errors import BenchError, ConflictingResultError, LeaseLostError
from bench.names import HELD_OUT
from bench.outcome import Flag, Outcome
from bench.secret import masked
from bench.store.engine import open_engine, options
from bench.store.problems import damaged, readable_errors
from bench.store.retry import lasting
from bench.store.rows import CellRow, Kind, Names, audit_row, read_rows
from bench.store.schema import DONE, FAILED, RUNNING, Audit, Cell, Chunk, Failure, Lease, Run, Weights, now
from bench.store.twins import is_imported, make_room
from bench.store.url import sqlite_file

if TYPE_CHECKING:
    import torch

    from bench.audit.spec import AuditSpec
    from bench.spec import CellSpec

_ERROR, _TRACEBACK = 2_000, 100_000
"""Characters that are kept of an error and of its traceback."""
_KEYS_A_QUERY = 1000
_MANY_KEYS, _KEYS_READ_FOR_ONE_FOUND = 20_000, 5
"""Looking up so many keys takes longer than to read all that are stored, unless there are so many times more."""
_MOST_SEEKS = 10_000


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
            return read_rows(session, self.target, Cell.key == key)[0]

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
                rows = read_rows(session, self.target, Cell.key.in_(part), Cell.status == DONE)
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

        Those on a held-out part of a training set are no results: they come only to who names their dataset, their key
        or their weights.

        Args:
            equal: a value for a column, or a list of those that it may have; None does not choose.
        """
        wanted = {name: value for name, value in equal.items() if value is not None}
        with self.reading() as session:
            where = [] if {*wanted} & {"dataset", "key", "weights_key"} else [~Cell.dataset.startswith(HELD_OUT)]
            if {*wanted} - {"status", "key", "weights_key"}:
                wanted |= _along_the_index(session, wanted)
            where += [_is(getattr(Cell, name), value) for name, value in wanted.items()]
            return read_rows(session, self.target, *where, order=(Cell.created, Cell.key))

    @lasting
    def names(self, status: str | None = DONE, *, held_out: bool = False) -> list[Names]:
        """What the stored cells are called.

        Args:
            status: of the cells that count; None for all.
            held_out: whether those on held-out parts of training sets are meant, and not the others.
        """
        query = sa.select(Cell.dataset, Cell.model, Cell.defense, Cell.attack).distinct()
        with self.reading() as session:
            found = session.execute(query if status is None else query.where(Cell.status == status)).all()
        return sorted(name for name in map(Names._make, found) if name.dataset.startswith(HELD_OUT) == held_out)

    @lasting
    def kinds(self, status: str | None = DONE, keys: Iterable[str] | None = None) -> list[Kind]:
        """What there is of every dataset, model, defense and attack, with the number of cells, without loading a cell.

        Args:
            status: of the cells that count; None for all.
            keys: of the cells that count; all if not given, but for those on held-out parts of training sets.
        """
        columns = (Cell.dataset, Cell.model, Cell.defense, Cell.attack, Cell.status, Cell.verdict)
        query = sa.select(*columns, sa.func.count()).group_by(*columns)
        query = query if status is None else query.where(Cell.status == status)
        query = query.where(~Cell.dataset.startswith(HELD_OUT)) if keys is None else query
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
            rows = read_rows(session, self.target, *near, limit=2)
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
            return audit_row(row) if row is not None else None

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


def _conflict(key: str, start: int, held: Outcome, new: Outcome) -> str:
    def shown(outcome: Outcome) -> str:
        return f"clean {outcome.clean.mean():.4f}, robust {outcome.robust_last.mean():.4f}"

    differing = int((held.last != new.last).any(1).sum()) if held.last.shape == new.last.shape else held.n
    return (
        f"cell {key[:12]}, images {start} to {start + held.n - 1}: a second measurement differs from the stored one "
        f"({shown(held)} stored; {shown(new)} now; {differing} images differ under attack); nothing was overwritten"
    )
