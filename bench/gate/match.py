"""Which stored cell is the counterpart of a baseline's, and what keeps two from being compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.exchange.bundle import Bundle, Parcel
from bench.spec import canonical_json
from bench.store import CellRow

MATCHED, OTHER, MISSING = "matched", "other", "missing"


@dataclass(frozen=True)
class Match:
    """What the store has for one cell of a baseline.

    Attributes:
        kind: `MATCHED`; `OTHER`, there is one that cannot be compared; or `MISSING`.
        row: the counterpart; None where it is missing.
        why: what differs, or that nothing is there.
    """

    kind: str
    row: CellRow | None
    why: str = ""


def find_counterpart(
    parcel: Parcel, baseline: Bundle, rows: Sequence[CellRow], hashes: Mapping[str, str], *, new_weights: bool
) -> Match:
    """Look for the cell that repeats a baseline's.

    It must agree in test images, attack, budget, scoring and architecture. The code version and the machine may
    differ, that is what a check is about; the weights only on demand.

    Args:
        parcel: of the baseline.
        baseline: all of it.
        rows: finished cells of the store, oldest first.
        hashes: weights key -> SHA-256 of the weights, of the store.
        new_weights: other weights are the point of the check: the same defense and seed then name the network, or
            nothing does where either side holds a single one.
    """
    sha256 = baseline.weights[parcel.weights_key]["sha256"]
    protocol = canonical_json(protocol_of(parcel.spec))
    same = [row for row in rows if canonical_json(protocol_of(row.spec)) == protocol]
    for row in reversed(same):
        if hashes.get(row.weights_key) == sha256:
            return Match(MATCHED, row)
    names = {_network(cell.labels["defense"], cell.labels["seed"]) for cell in baseline.cells}
    found = {_network(row.defense, row.seed) for row in same}
    alike = [row for row in same if _network(row.defense, row.seed) == _network(*_labels(parcel))]
    if not alike and len(names) == len(found) == 1:
        alike = same
    if alike and new_weights:
        if len({hashes.get(row.weights_key) for row in alike}) > 1:
            return Match(OTHER, alike[-1], "several networks in the store match; name one with --defense or --seed")
        return Match(MATCHED, alike[-1])
    if alike:
        now = hashes.get(alike[-1].weights_key, "?")
        return Match(
            OTHER, alike[-1],
            f"other weights ({sha256[:8]} -> {now[:8]}); to compare a new model with the old one: --new-weights",
        )  # fmt: skip
    near = [row for row in rows if _resembles(row, parcel)]
    if near:
        return Match(OTHER, near[-1], "other protocol: " + _difference(parcel.spec, near[-1].spec))
    return Match(MISSING, None, "no such cell is stored; run the baseline's attacks with bench run first")


def protocol_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's identity without its weights."""
    return {name: value for name, value in spec.items() if name != "weights"}


def _labels(parcel: Parcel) -> tuple[str, int]:
    return str(parcel.labels["defense"]), int(parcel.labels["seed"])


def _network(defense: str, seed: int) -> tuple[str, int]:
    # Given weights carry their file's name, which is what a new model changes.
    return defense.partition(" (")[0], seed


def _resembles(row: CellRow, parcel: Parcel) -> bool:
    names = ("dataset", "attack", "norm", "eps")
    alike = all(getattr(row, name) == parcel.labels[name] for name in names)
    return alike and _network(row.defense, row.seed) == _network(*_labels(parcel))


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    found = list(_differences(protocol_of(old), protocol_of(new), ""))
    shown = [f"{name} {_short(a)} -> {_short(b)}" for name, a, b in found[:4]]
    return ", ".join(shown) + (f" and {len(found) - 4} more" if len(found) > 4 else "")


def _differences(old: Any, new: Any, name: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = sorted({*old, *new})
        return [d for key in names for d in _differences(old.get(key), new.get(key), f"{name} {key}".strip())]
    return [] if old == new else [(name, old, new)]


def _short(value: Any) -> str:
    text = str(value)
    return text[:8] if len(text) == 64 else text
