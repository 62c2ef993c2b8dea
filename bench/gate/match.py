"""Which stored cells are the counterparts of a baseline's, and what keeps two from being compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bench.canonical import canonical_json
from bench.exchange.bundle import Bundle, Parcel
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


def find_counterparts(
    baseline: Bundle, rows: Sequence[CellRow], hashes: Mapping[str, str], *, new_weights: bool
) -> Iterator[Match]:
    """Look for the cell that repeats each of a baseline's, in the baseline's order.

    It must agree in test images, attack, budget, scoring and architecture. The code version and the machine may
    differ, that is what a check is about; the weights only on demand.

    Args:
        baseline: whose cells are looked for.
        rows: finished cells of the store, oldest first.
        hashes: weights key -> SHA-256 of the weights, of the store.
        new_weights: other weights are the point of the check: the same defense and seed then name the network, or
            nothing does where either side holds a single one.
    """
    by_protocol: dict[str, list[CellRow]] = {}
    for row in rows:
        by_protocol.setdefault(canonical_json(protocol_of(row.spec)), []).append(row)
    protocols = [canonical_json(protocol_of(parcel.spec)) for parcel in baseline.cells]
    # A row that repeats one cell of the baseline is no failed attempt at another.
    strays = [row for protocol, held in by_protocol.items() if protocol not in protocols for row in held]
    names = {_network(*_labels(parcel)) for parcel in baseline.cells}
    for parcel, protocol in zip(baseline.cells, protocols, strict=True):
        sha256 = str(baseline.weights[parcel.weights_key]["sha256"])
        yield _match(parcel, sha256, by_protocol.get(protocol, ()), strays, len(names) == 1, hashes, new_weights)


def _match(
    parcel: Parcel,
    sha256: str,
    same: Sequence[CellRow],
    strays: Sequence[CellRow],
    single: bool,
    hashes: Mapping[str, str],
    new_weights: bool,
) -> Match:
    own = [row for row in same if hashes.get(row.weights_key) == sha256]
    if own and not new_weights:
        return Match(MATCHED, own[-1])
    # Where a baseline was saved from this store, its own rows are there beside those of the new network.
    alike = _named_as(parcel, [row for row in same if not (row in own and is_own(row, parcel))], single)
    if alike and new_weights:
        if len({hashes.get(row.weights_key) for row in alike}) > 1:
            why = "several networks in the store match; measure the one you mean into a folder of its own (--results)"
            return Match(OTHER, alike[-1], why)
        return Match(MATCHED, alike[-1])
    if own:
        return Match(MATCHED, own[-1])
    if alike:
        now = hashes.get(alike[-1].weights_key, "?")
        return Match(
            OTHER, alike[-1],
            f"other weights ({sha256[:8]} -> {now[:8]}); to compare a new model with the old one: --new-weights",
        )  # fmt: skip
    near = [row for row in _named_as(parcel, strays, single) if row.attack == parcel.labels["attack"]]
    if near:
        row = min(reversed(near), key=lambda row: len(_differing(parcel.spec, row.spec)))
        what = "other protocol" if row.spec["test_hash"] == parcel.spec["test_hash"] else "other data"
        return Match(OTHER, row, f"{what}: {_difference(parcel.spec, row.spec)}")
    return Match(MISSING, None, "no such cell is stored; run the baseline's attacks with bench run first")


def is_own(row: CellRow, parcel: Parcel) -> bool:
    """Whether a row is the baseline's own measurement and no repetition of it."""
    return _instant(row.updated) == _instant(parcel.updated)


def protocol_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's identity without its weights."""
    return {name: value for name, value in spec.items() if name != "weights"}


def _instant(when: datetime) -> datetime:
    # SQLite gives times back without their zone.
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _named_as(parcel: Parcel, rows: Sequence[CellRow], single: bool) -> Sequence[CellRow]:
    """Rows of the network that has the cell's name, or of the only one there is, where the baseline has one as well."""
    alike = [row for row in rows if _network(row.defense, row.seed) == _network(*_labels(parcel))]
    if not alike and single and len({_network(row.defense, row.seed) for row in rows}) == 1:
        return rows
    return alike


def _labels(parcel: Parcel) -> tuple[str, int]:
    return str(parcel.labels["defense"]), int(parcel.labels["seed"])


def _network(defense: str, seed: int) -> tuple[str, int]:
    # Given weights carry their file's name, which is what a new model changes.
    return defense.partition(" (")[0], seed


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return _differences(protocol_of(old), protocol_of(new), "")


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    found = _differing(old, new)
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
