"""One recipe, two sets of bits: what was trained here keeps the recipe's key, what came from elsewhere is a twin.

Training rounds differently on different machines. Whether the other's results arrive before or after ours are measured
must not matter: an import calls them what `make_room` calls them when training finds them under our key.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from bench.canonical import canonical_json
from bench.errors import ConflictingResultError
from bench.outcome import Outcome
from bench.store.schema import Audit, Cell, Chunk, Run, Weights

TWIN = "twin:"
"""Begins the key of weights that another machine trained by a recipe that was trained here too, with other bits."""

Row = TypeVar("Row", Weights, Cell, Audit)


def place_of(session: Session, key: str, sha256: str, spec: Mapping[str, Any]) -> str:
    """What weights from elsewhere are called here.

    Args:
        session: of the store that they go to.
        key, sha256, spec: of the weights, as they are called there.
    """
    if key.startswith(TWIN):
        # A twin elsewhere may be the network that is at home here, under the recipe's own key.
        for known in session.query(Weights).filter_by(sha256=sha256):
            if canonical_json(known.spec) == canonical_json(spec):
                return known.key
    held = session.get(Weights, key)
    return key if held is None or held.sha256 == sha256 else TWIN + sha256


def make_room(session: Session, key: str, sha256: str, spec: Mapping[str, Any]) -> None:
    """Let weights that were trained here have their key, whatever was imported before.

    Under the key may be imported weights with other bits: they become a twin. Elsewhere may be, as a twin, the very
    bits that were trained now: they come home.

    Args:
        session: may write; all of it is one transaction with the weights that need the room.
        key, sha256, spec: of the weights that were trained here.
    """
    held = session.get(Weights, key)
    if held is not None and held.sha256 != sha256 and _only_imported(session, held):
        _rename(session, held, TWIN + held.sha256)
        held = None
    twin = session.get(Weights, TWIN + sha256)
    if twin is not None and held is None and canonical_json(twin.spec) == canonical_json(spec):
        _rename(session, twin, key)


def is_imported(session: Session, weights: Weights) -> bool:
    """Whether a set of weights is known from an import, and was not trained or given here since."""
    return "imported" in session.get_one(Run, weights.run_id).provenance


def called(spec: Mapping[str, Any], weights: str) -> tuple[dict[str, Any], str]:
    """A cell's identity and key where its weights are called so."""
    renamed = dict(spec) | {"weights": weights}
    return renamed, hashlib.sha256(canonical_json(renamed).encode()).hexdigest()


def audit_called(key: str, weights: str) -> str:
    """The key of an audit once its weights are called so; its own would need the test set, which is not stored."""
    return hashlib.sha256(canonical_json([key, weights]).encode()).hexdigest()


def knows_audit(session: Session, weights: str, audit: Mapping[str, Any]) -> bool:
    """Whether such an audit of these weights is there, under any key."""
    same = {name: audit[name] for name in ("model_hash", "norm", "eps", "n", "version")}
    return session.query(Audit).filter_by(weights_key=weights, **same).first() is not None


def with_key(imported: Mapping[str, Any], there: str, here: str) -> dict[str, Any]:
    """What provenance says of an import, naming the key that a row had there, where it is not the one it has here."""
    rest = {name: value for name, value in imported.items() if name != "key"}
    return rest if there == here else rest | {"key": there}


def outcome_of(session: Session, key: str) -> Outcome:
    """All outcomes of a cell that has some."""
    chunks = session.query(Chunk).filter_by(cell_key=key).order_by(Chunk.start)
    return Outcome.concatenate([Outcome.unpack(chunk.outcome) for chunk in chunks])


def _only_imported(session: Session, weights: Weights) -> bool:
    """Whether nothing was trained, measured or audited here on these weights."""
    runs = {weights.run_id}
    for table in (Cell, Audit):
        runs |= set(session.scalars(sa.select(table.run_id).where(table.weights_key == weights.key)))
    known = session.scalars(sa.select(Run.provenance).where(Run.id.in_(runs)))
    return all("imported" in provenance for provenance in known)


def _rename(session: Session, weights: Weights, name: str) -> None:
    """Call imported weights something else, with everything that was imported on them."""
    used, moved = {weights.run_id}, list[int]()
    target = session.get(Weights, name)
    fresh = target is None
    if target is None:
        target = _copy(weights, key=name)
        session.add(target)
        session.flush()
    cells = sa.select(Cell).where(Cell.weights_key == weights.key).order_by(Cell.created, Cell.key)
    for cell in session.scalars(cells).all():
        used.add(cell.run_id)
        moved += _rename_cell(session, cell, name)
    for audit in session.scalars(sa.select(Audit).where(Audit.weights_key == weights.key)).all():
        used.add(audit.run_id)
        _rename_audit(session, audit, name)
    if fresh and moved:
        target.run_id = moved[0]
    session.delete(weights)
    session.flush()
    _forget_unused(session, used)


def _rename_cell(session: Session, cell: Cell, weights: str) -> list[int]:
    """Returns the run that it belongs to now; none where a cell of that key is there."""
    spec, key = called(cell.spec, weights)
    held = session.get(Cell, key)
    if held is not None and not outcome_of(session, key).agrees_with(outcome_of(session, cell.key)):
        raise ConflictingResultError(
            f"cells {cell.key[:12]} and {key[:12]} were imported on the same weights with other outcomes; "
            "keep them apart with another --results folder"
        )
    runs = list[int]()
    if held is None:
        run = _run_named(session, cell.run_id, cell.key, key)
        session.add(_copy(cell, key=key, spec=spec, weights_key=weights, run_id=run))
        session.flush()
        session.execute(sa.update(Chunk).where(Chunk.cell_key == cell.key).values(cell_key=key))
        runs.append(run)
    session.execute(sa.delete(Chunk).where(Chunk.cell_key == cell.key))
    session.delete(cell)
    session.flush()
    return runs


def _rename_audit(session: Session, audit: Audit, weights: str) -> None:
    key = audit_called(audit.key, weights)
    if not knows_audit(session, weights, vars(audit)):
        run = _run_named(session, audit.run_id, audit.key, key)
        session.add(_copy(audit, key=key, weights_key=weights, run_id=run))
    session.delete(audit)
    session.flush()


def _run_named(session: Session, run: int, was: str, now: str) -> int:
    """The run of an imported row, with the key that the row had where it comes from."""
    old = session.get_one(Run, run)
    imported = old.provenance["imported"]
    new = Run(
        provenance={**old.provenance, "imported": with_key(imported, imported.get("key", was), now)},
        created=old.created,
    )
    session.add(new)
    session.flush()
    return new.id


def _forget_unused(session: Session, runs: set[int]) -> None:
    tables = (Weights, Cell, Audit)
    needed = {run for table in tables for run in session.scalars(sa.select(table.run_id).where(table.run_id.in_(runs)))}
    session.execute(sa.delete(Run).where(Run.id.in_(runs - needed)))


def _copy(row: Row, **changed: Any) -> Row:
    values = {column.key: getattr(row, column.key) for column in sa.inspect(type(row)).column_attrs}
    return type(row)(**values | changed)
