"""Finished cells with everything that another store needs to believe them, as one JSON file."""

import base64
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from attacks.events.threat import EVENTS
from bench.audit.finding import Finding
from bench.audit.join import AuditRow, hash_of_model
from bench.canonical import canonical_json
from bench.errors import BenchError
from bench.outcome import Outcome, unpacked_length
from bench.store import CellRow, Store, nonfinite

FORMAT, VERSION = "snn-bench results", 1

LARGEST = 2**30
"""Bytes that a file may hold once unpacked: some hundred thousand cells. A small file can claim to hold far more."""

_LARGEST_COUNT = 2**53
_MOST_DECISIONS = 2**27


@dataclass(frozen=True)
class Parcel:
    """One finished cell.

    Attributes:
        key: the cell's; `read_bundle` has checked that it is the hash of `spec`.
        labels: what is no part of the key: dataset, model, defense, seed, attack, norm, eps.
        spec: the cell's identity as JSON values.
        outcome: of every image; rates are computed from it and never read from a file.
        forwards, backwards, seconds: what it cost.
        provenance: of the run that measured it.
        updated: when.
    """

    key: str
    labels: Mapping[str, Any]
    spec: Mapping[str, Any]
    outcome: Outcome
    forwards: int
    backwards: int
    seconds: float
    provenance: Mapping[str, Any]
    updated: datetime

    @property
    def weights_key(self) -> str:
        return str(self.spec["weights"])


@dataclass(frozen=True)
class Bundle:
    """Cells and the weights they were measured on.

    Attributes:
        cells: in the order of the store.
        weights: key -> `{"sha256", "spec", "log", "seconds"}` as the store has them.
        audits: key -> what the store has of each audit that speaks about a cell.
        about: free notes of whoever wrote the file, JSON values.
    """

    cells: tuple[Parcel, ...]
    weights: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, Any]
    audits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def collect_bundle(store: Store, rows: Iterable[CellRow], about: Mapping[str, Any] | None = None) -> Bundle:
    """Finished cells of a store as a bundle; unfinished ones are left out."""
    parcels, weights, audits = [], dict[str, Mapping[str, Any]](), dict[str, Mapping[str, Any]]()
    for row in rows:
        outcome = store.outcome(row.key)
        if row.summary is None or outcome is None:
            continue
        labels = {name: getattr(row, name) for name in _LABELS}
        parcels.append(
            Parcel(
                row.key, labels, dict(row.spec), outcome, row.forwards, row.backwards, row.seconds,
                store.provenance(row.key), row.updated,
            )
        )  # fmt: skip
        if row.weights_key not in weights:
            known = store.weights(row.weights_key)
            assert known is not None
            weights[row.weights_key] = {name: known[name] for name in ("sha256", "spec", "log", "seconds")}
        if row.audit is not None:
            audits[row.audit.key] = _audit_json(row, row.audit)
    return Bundle(tuple(parcels), weights, dict(about or {}), audits)


def _audit_json(row: CellRow, audit: AuditRow) -> dict[str, Any]:
    return {
        "weights_key": row.weights_key,
        "model_hash": hash_of_model(row.spec["model"]),
        "norm": row.norm,
        "eps": audit.eps,
        "n": audit.n,
        "version": audit.version,
        "verdict": audit.verdict,
        "findings": [finding.as_json() for finding in audit.findings],
        "seconds": audit.seconds,
        "created": audit.created.isoformat(),
    }


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Write a bundle, atomically; compressed where the name ends in `.gz`.

    Raises:
        BenchError: it cannot be written; an existing file stays as it was.
    """
    from bench.atomic import write_atomically

    text = json.dumps(bundle_json(bundle), indent=1, sort_keys=True) + "\n"
    data = text.encode()
    write_atomically(path, gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)


def bundle_json(bundle: Bundle) -> dict[str, Any]:
    """A bundle as JSON values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "about": dict(bundle.about),
        # The log of a training without a holdout has accuracies that are none.
        "weights": {key: json.loads(nonfinite.dumps(dict(value))) for key, value in bundle.weights.items()},
        "audits": {key: dict(value) for key, value in bundle.audits.items()},
        "cells": [
            {
                "key": parcel.key,
                "labels": dict(parcel.labels),
                "spec": parcel.spec,
                "outcome": base64.b64encode(parcel.outcome.pack()).decode(),
                "forwards": parcel.forwards,
                "backwards": parcel.backwards,
                "seconds": parcel.seconds,
                "provenance": dict(parcel.provenance),
                "updated": parcel.updated.isoformat(),
            }
            for parcel in bundle.cells
        ],
    }


def read_bundle(path: Path) -> Bundle:
    """Read what `write_bundle` wrote, and believe nothing of it that can be checked.

    Raises:
        BenchError: missing, damaged, of another kind, or a cell's key does not belong to its content.
    """
    try:
        data = path.read_bytes()
        text = _unzipped(data, path) if data[:2] == b"\x1f\x8b" else data
        return bundle_of_json(json.loads(text), str(path))
    except OSError as error:
        raise BenchError(f"cannot read '{path}': {error.strerror or error}") from error
    except (EOFError, zlib.error, ValueError, RecursionError) as error:
        raise BenchError(f"'{path}' is not a file of results ({error}); write one with: bench export FILE") from error


def _unzipped(data: bytes, path: Path) -> bytes:
    with gzip.open(io.BytesIO(data)) as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise BenchError(f"'{path}' unpacks to over {LARGEST >> 20:,} MiB, which no file of results does")
    return text


def bundle_of_json(data: Any, source: str) -> Bundle:
    """A bundle from what `bundle_json` gave; raises as `read_bundle`."""
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise BenchError(f"'{source}' is not a file of results; write one with: bench export FILE")
    if data.get("version") != VERSION:
        raise BenchError(f"'{source}' was written by a newer release (format {data.get('version')}); upgrade bench")
    try:
        # What no JSON file and no database can hold: numbers without a value, halves of letters.
        json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
        weights = {str(key): _checked_weights(value) for key, value in data["weights"].items()}
        cells = tuple(_parcel(cell) for cell in data["cells"])
        for cell in cells:
            if cell.weights_key not in weights:
                raise ValueError(f"cell {cell.key[:12]} has no record of its weights")
        _check_unique(cells)
        audits = {str(key): _checked_audit(value) for key, value in (data.get("audits") or {}).items()}
        return Bundle(cells, weights, dict(data.get("about") or {}), audits)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, BenchError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise BenchError(f"'{source}' is damaged: {what}") from error


_LABELS = ("dataset", "model", "defense", "seed", "attack", "norm", "eps")


def _parcel(data: Mapping[str, Any]) -> Parcel:
    key, spec = str(data["key"]), data["spec"]
    if hashlib.sha256(canonical_json(spec).encode()).hexdigest() != key:
        raise ValueError(f"the content of cell {key[:12]} is not what its key says")
    labels = {name: data["labels"][name] for name in _LABELS}
    if not all(isinstance(labels[name], int if name == "seed" else str) for name in _LABELS):
        raise ValueError(f"the labels of cell {key[:12]} are not text and a number")
    from bench.respec import cell_from_json  # imports torch, which writing a bundle needs not

    # Whoever reads the store takes a spec for what it should be.
    cell = cell_from_json(
        spec, dataset=labels["dataset"], defense_name=labels["defense"], seed=_count(labels["seed"]),
        attack_name=labels["attack"],
    )  # fmt: skip
    if not (0 < _count(cell.n) * _count(cell.draws) <= _MOST_DECISIONS and _count(cell.model.num_classes)):
        raise ValueError(f"cell {key[:12]} is of {cell.n} images and {cell.draws} draws")
    outcome = Outcome.unpack(_bounded(base64.b64decode(data["outcome"], validate=True), cell.n, cell.draws))
    if outcome.n != cell.n or outcome.clean.shape[1] != cell.draws:
        raise ValueError(f"cell {key[:12]} holds {outcome.n} images instead of {cell.n}")
    if (outcome.edits is not None) != (cell.attack.norm == EVENTS):
        raise ValueError(
            f"cell {key[:12]} should {'' if outcome.edits is None else 'not '}say which events were edited"
        )
    provenance = dict(data["provenance"])
    if isinstance(provenance.get("started"), str):
        datetime.fromisoformat(provenance["started"])
    return Parcel(
        key, labels, spec, outcome, _count(data["forwards"]), _count(data["backwards"]), float(data["seconds"]),
        provenance, datetime.fromisoformat(data["updated"]),
    )  # fmt: skip


def _bounded(packed: bytes, n: int, draws: int) -> bytes:
    """The same bytes, once it is sure that they do not unpack to more than a cell's outcome."""
    most = unpacked_length(int.from_bytes(packed[:4], "little"), n, draws)
    try:
        if len(zlib.decompressobj().decompress(packed[12:], most + 1)) > most:
            raise ValueError(f"an outcome holds more than {n} images")
    except zlib.error as error:
        raise ValueError(f"not a packed outcome: {error}") from error
    return packed


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_COUNT:
        raise ValueError(f"'{str(value)[:20]}' is no count")
    return value


def _checked_weights(data: Mapping[str, Any]) -> dict[str, Any]:
    weights = {name: nonfinite.loads(json.dumps(data[name])) for name in ("sha256", "spec", "log", "seconds")}
    if not re.fullmatch("[0-9a-f]{64}", str(weights["sha256"])):
        raise ValueError(f"'{str(weights['sha256'])[:20]}' is no SHA-256")
    if not isinstance(weights["spec"], dict) or not isinstance(weights["log"], list):
        raise ValueError("the record of some weights is no record")
    if weights["seconds"] is not None:
        weights["seconds"] = float(weights["seconds"])
    from bench.respec import model_from_json, train_from_json

    if "recipe" in weights["spec"]:
        train_from_json(weights["spec"], dataset="", defense_name="", log_eps=Fraction(0))
    elif "model" in weights["spec"]:
        model_from_json(weights["spec"]["model"])
    return weights


def _checked_audit(data: Mapping[str, Any]) -> dict[str, Any]:
    for finding in data["findings"]:
        Finding.of_json(finding)
    datetime.fromisoformat(data["created"])
    wanted = ("weights_key", "model_hash", "norm", "eps", "n", "version", "verdict", "findings", "seconds", "created")
    return {name: data[name] for name in wanted}


def _check_unique(cells: Sequence[Parcel]) -> None:
    keys = [cell.key for cell in cells]
    if len(set(keys)) != len(keys):
        raise ValueError("it holds a cell twice")
