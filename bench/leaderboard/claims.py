"""What a submission says and nobody here can check, cut to what pages and tables can show."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bench.errors import BenchError
from bench.exchange.bundle import Bundle, Parcel

_TEXTS = ("version", "commit", "device", "python", "machine", "command")
_LONGEST = 1000


def line(value: Any, longest: int = _LONGEST) -> str:
    """A text of anybody's as one printable line."""
    words = "".join(character if character.isprintable() else " " for character in str(value)).split()
    return " ".join(words)[:longest]


def cut(bundle: Bundle) -> Bundle:
    """A bundle without audits, and with nothing in its provenance that is not expected there.

    Raises:
        BenchError: a cost that is no cost.
    """
    weights = {key: _weights(known) for key, known in bundle.weights.items()}
    return replace(bundle, cells=tuple(map(_parcel, bundle.cells)), weights=weights, audits={})


def _parcel(parcel: Parcel) -> Parcel:
    cost = (parcel.forwards, parcel.backwards, parcel.seconds)
    if not all(math.isfinite(value) and 0 <= value < 1 << 62 for value in cost):
        raise BenchError(f"cell {parcel.key[:12]} claims a cost of {cost}; refused")
    updated = parcel.updated if parcel.updated.tzinfo else parcel.updated.replace(tzinfo=UTC)
    # What was measured last speaks for an entry: nobody has measured anything in the future.
    return replace(parcel, provenance=_provenance(parcel.provenance), updated=min(updated, datetime.now(UTC)))


def _provenance(said: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: line(said[name]) for name in _TEXTS if isinstance(said.get(name), str)}
    if isinstance(said.get("dirty"), bool):
        found["dirty"] = said["dirty"]
    packages = said.get("packages")
    if isinstance(packages, Mapping):
        found["packages"] = {line(k, 60): line(v, 60) for k, v in list(packages.items())[:50]}
    with suppress(KeyError, TypeError, ValueError):
        found["started"] = datetime.fromisoformat(said["started"]).isoformat()
    return found


def _weights(known: Mapping[str, Any]) -> dict[str, Any]:
    log, seconds = known.get("log"), known.get("seconds")
    return {
        "sha256": known.get("sha256"),
        "spec": known.get("spec"),
        "log": [each for each in log if isinstance(each, Mapping)] if isinstance(log, list) else [],
        "seconds": float(seconds) if isinstance(seconds, int | float) and math.isfinite(seconds) else None,
    }
