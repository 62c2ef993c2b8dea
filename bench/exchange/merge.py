"""Bringing another store's results into this one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from bench.canonical import canonical_json
from bench.errors import ConflictingResultError
from bench.exchange.bundle import Bundle, Parcel
from bench.store import Store
from bench.store.retry import lasting
from bench.store.schema import DONE, Audit, Cell, Chunk, Failure, Run, Weights
from bench.store.store import summarise
from bench.store.twins import audit_called, called, knows_audit, outcome_of, place_of, with_key


@dataclass(frozen=True)
class Merged:
    """What became of a bundle's cells.

    Attributes:
        added: keys of cells that are new here.
        known: keys of cells that were here with the same outcomes.
        twins: of the added ones: key here -> key there, for cells on weights whose recipe has other bits here.
    """

    added: tuple[str, ...]
    known: tuple[str, ...]
    twins: Mapping[str, str]


@lasting
def merge_bundle(store: Store, bundle: Bundle, *, note: Mapping[str, Any]) -> Merged:
    """Add a bundle's cells to a store: all of them, or none.

    Rates and verdicts are computed from the outcomes, nothing derived is believed. The provenance of each cell stays
    that of the run that measured it, with `imported` beside it.

    Training rounds differently on different machines, so two stores may hold one recipe with different weights.
    Their cells are kept apart: those that come in get weights called `twin:SHA256` and keys of their own, and
    their provenance names the keys they had. If the recipe is trained here only later, `Store.record_weights` does it
    then, to the same effect.

    Args:
        store: where they go.
        bundle: from `read_bundle`.
        note: where the bundle comes from; becomes part of the provenance.

    Raises:
        ConflictingResultError: a cell is here with other decisions. Nothing is written.
    """
    added, known, twins = [], [], dict[str, str]()
    runs: dict[str, int] = {}
    with store.writing() as session:
        renamed = {
            key: place_of(session, key, str(weights["sha256"]), weights["spec"])
            for key, weights in bundle.weights.items()
        }
        for parcel in bundle.cells:
            weights = renamed[parcel.weights_key]
            spec, key = called(parcel.spec, weights)
            held = session.get(Cell, key)
            if held is not None and held.status == DONE:
                _check_same(session, key, parcel)
                known.append(key)
                continue
            if held is not None:
                # Begun here and not finished: the finished one takes its place.
                session.query(Chunk).filter_by(cell_key=key).delete()
                session.delete(held)
                session.flush()
            run = _run(session, runs, parcel, note, key)
            if session.get(Weights, weights) is None:
                session.add(_weights(weights, bundle.weights[parcel.weights_key], run))
                session.flush()
            _add_cell(session, key, weights, spec, parcel, run)
            added.append(key)
            if key != parcel.key:
                twins[key] = parcel.key
        for key, audit in bundle.audits.items():
            if str(audit["weights_key"]) in renamed:
                _add_audit(session, runs, key, audit, renamed[str(audit["weights_key"])], note)
    return Merged(tuple(added), tuple(known), twins)


def _add_audit(
    session: Session,
    runs: dict[str, int],
    there: str,
    audit: Mapping[str, Any],
    weights: str,
    note: Mapping[str, Any],
) -> None:
    same = weights == audit["weights_key"]
    key = there if same else audit_called(there, weights)
    if session.get(Audit, key) is not None or (not same and knows_audit(session, weights, audit)):
        return
    created = datetime.fromisoformat(str(audit["created"]))
    run = _run_of(session, runs, {}, with_key(_noted(note), there, key))
    session.add(Audit(**{**audit, "key": key, "weights_key": weights, "run_id": run, "created": created}))


def _check_same(session: Session, key: str, parcel: Parcel) -> None:
    held = outcome_of(session, key)
    if held.clean.shape == parcel.outcome.clean.shape and held.agrees_with(parcel.outcome):
        return
    differing = int((held.last != parcel.outcome.last).any(1).sum()) if held.n == parcel.outcome.n else held.n
    raise ConflictingResultError(
        f"cell {key[:12]} ({parcel.labels['defense']}, {parcel.labels['attack']}) is here with other outcomes: "
        f"{differing} of {held.n} images differ under attack; nothing was imported"
    )


def _run(session: Session, runs: dict[str, int], parcel: Parcel, note: Mapping[str, Any], key: str) -> int:
    """A row for the run that measured a cell which has this key here; cells of one run share it."""
    provenance = {k: v for k, v in parcel.provenance.items() if k not in ("run", "started", "imported")}
    imported = with_key(_noted(note), parcel.key, key)
    return _run_of(session, runs, provenance, imported, parcel.provenance.get("started"))


def _noted(note: Mapping[str, Any]) -> dict[str, Any]:
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), **note}


def _run_of(
    session: Session,
    runs: dict[str, int],
    provenance: Mapping[str, Any],
    imported: Mapping[str, Any],
    started: Any = None,
) -> int:
    name = canonical_json([provenance, imported.get("key")])
    if name not in runs:
        run = Run(provenance={**provenance, "imported": dict(imported)})
        if isinstance(started, str):
            run.created = datetime.fromisoformat(started)
        session.add(run)
        session.flush()
        runs[name] = run.id
    return runs[name]


def _weights(key: str, known: Mapping[str, Any], run: int) -> Weights:
    return Weights(
        key=key, sha256=known["sha256"], spec=known["spec"], log=list(known["log"]), seconds=known["seconds"],
        run_id=run,
    )  # fmt: skip


def _add_cell(session: Session, key: str, weights: str, spec: Mapping[str, Any], parcel: Parcel, run: int) -> None:
    row = Cell(
        key=key, weights_key=weights, status=DONE, **parcel.labels, spec=dict(spec), n=spec["n"], draws=spec["draws"],
        forwards=parcel.forwards, backwards=parcel.backwards, seconds=parcel.seconds, run_id=run,
    )  # fmt: skip
    # Labels that repeat what the key covers are taken from there.
    row.model, row.norm, row.eps = spec["model"]["name"], spec["attack"]["norm"], spec["attack"]["eps"]
    summarise(row, parcel.outcome, spec["model"]["num_classes"])
    row.updated = parcel.updated
    session.add(row)
    session.flush()
    session.execute(sa.delete(Failure).where(Failure.key == key))
    session.add(Chunk(cell_key=key, start=0, n=parcel.outcome.n, outcome=parcel.outcome.pack()))
