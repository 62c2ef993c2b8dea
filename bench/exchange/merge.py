"""Bringing another store's results into this one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from bench.errors import ConflictingResultError
from bench.exchange.bundle import Bundle, Parcel
from bench.spec import canonical_json
from bench.store import Store
from bench.store.schema import Audit, Cell, Chunk, Run, Weights
from bench.store.store import DONE, summarise

TWIN = "twin:"
"""Begins the key of weights that another machine trained by a recipe that was trained here too, with other bits."""


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


def merge_bundle(store: Store, bundle: Bundle, *, note: Mapping[str, Any]) -> Merged:
    """Add a bundle's cells to a store: all of them, or none.

    Rates and verdicts are computed from the outcomes, nothing derived is believed. The provenance of each cell stays
    that of the run that measured it, with `imported` beside it.

    Training rounds differently on different machines, so two stores may hold one recipe with different weights.
    Their cells are kept apart: those that come in get weights called `twin:SHA256` and keys of their own, and
    their provenance names the keys they had.

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
            key: _place_of(session, key, str(weights["sha256"]), weights["spec"])
            for key, weights in bundle.weights.items()
        }
        for parcel in bundle.cells:
            weights = renamed[parcel.weights_key]
            spec = dict(parcel.spec) | {"weights": weights}
            key = hashlib.sha256(canonical_json(spec).encode()).hexdigest()
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
            run = _run(session, runs, parcel, note, None if key == parcel.key else parcel.key)
            if session.get(Weights, weights) is None:
                session.add(_weights(weights, bundle.weights[parcel.weights_key], run))
                session.flush()
            _add_cell(session, key, weights, spec, parcel, run)
            added.append(key)
            if key != parcel.key:
                twins[key] = parcel.key
        for key, audit in bundle.audits.items():
            # An audit of a twin is not one of the weights that are here under that name.
            same = renamed.get(str(audit["weights_key"])) == audit["weights_key"]
            if same and session.get(Audit, key) is None:
                run = next(iter(runs.values()), None) or _note_run(session, note)
                created = datetime.fromisoformat(str(audit["created"]))
                session.add(Audit(**{**audit, "key": key, "run_id": run, "created": created}))
    return Merged(tuple(added), tuple(known), twins)


def _note_run(session: Session, note: Mapping[str, Any]) -> int:
    run = Run(provenance={"imported": dict(note)})
    session.add(run)
    session.flush()
    return run.id


def _place_of(session: Session, key: str, sha256: str, spec: Mapping[str, Any]) -> str:
    if key.startswith(TWIN):
        # A twin elsewhere may be the network that is at home here, under the recipe's own key.
        for known in session.query(Weights).filter_by(sha256=sha256):
            if canonical_json(known.spec) == canonical_json(spec):
                return known.key
    held = session.get(Weights, key)
    return key if held is None or held.sha256 == sha256 else TWIN + sha256


def _check_same(session: Session, key: str, parcel: Parcel) -> None:
    from bench.outcome import Outcome

    chunks = session.query(Chunk).filter_by(cell_key=key).order_by(Chunk.start)
    held = Outcome.concatenate([Outcome.unpack(chunk.outcome) for chunk in chunks])
    if held.clean.shape == parcel.outcome.clean.shape and held.agrees_with(parcel.outcome):
        return
    differing = int((held.last != parcel.outcome.last).any(1).sum()) if held.n == parcel.outcome.n else held.n
    raise ConflictingResultError(
        f"cell {key[:12]} ({parcel.labels['defense']}, {parcel.labels['attack']}) is here with other outcomes: "
        f"{differing} of {held.n} images differ under attack; nothing was imported"
    )


def _run(session: Session, runs: dict[str, int], parcel: Parcel, note: Mapping[str, Any], original: str | None) -> int:
    """A row for the run that measured a cell; cells of one run share it."""
    imported = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **note}
    if original is not None:
        imported["key"] = original
    provenance = {k: v for k, v in parcel.provenance.items() if k not in ("run", "started", "imported")}
    name = canonical_json([provenance, original])
    if name not in runs:
        run = Run(provenance={**provenance, "imported": imported})
        started = parcel.provenance.get("started")
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
    session.add(Chunk(cell_key=key, start=0, n=parcel.outcome.n, outcome=parcel.outcome.pack()))
