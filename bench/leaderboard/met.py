"""Which attacks a network has met. On a noisy one, whoever follows a mean over more draws attacks harder."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from bench.errors import BenchError
from bench.names import without_eot
from bench.resolve import parse_attack
from bench.store import CellRow
from bench.ways import is_noisy

Networks = Mapping[str, Sequence[CellRow]]
"""The cells of each network of an entry, by weights."""

Met = Mapping[str, float]
"""Attacks that a network met, without their means over draws, and how many draws these had at most."""


def met(cells: Iterable[CellRow]) -> dict[str, float]:
    """What the valid ones among a network's cells say that it met, in their order."""
    found: dict[str, float] = {}
    for row in cells:
        if row.verdict != "invalid":
            name = without_eot(row.attack)
            found[name] = max(found.get(name, 0), _draws_met(row))
    return found


def meets(found: Met, name: str) -> bool:
    """Whether a network that met these attacks met the named one: the same, with a mean over as many draws or more."""
    return found.get(without_eot(name), 0) >= draws_asked(name)


def draws_asked(name: str) -> int:
    """Over how many draws the named attack takes the mean of its gradients."""
    written = re.search(r"\beot=(\d+)", name)
    if written:
        return int(written[1])
    for norm in ("linf", "l2"):
        try:
            return parse_attack(name, "1/10", norm).eot
        except BenchError:
            continue
    # Somebody else's attack, which is not loaded here.
    return 1


def usual(ways: Collection[Networks]) -> tuple[str, ...]:
    """Attacks that at least half of the entries met, each by more than half of its networks.

    Of one attack with several means it is the one with most draws.
    """
    rows = [row for networks in ways for cells in networks.values() for row in cells]
    names = dict.fromkeys(_asked_of(row) for row in rows if row.verdict != "invalid")
    able = [[found for cells in networks.values() if (found := met(cells))] for networks in ways]
    each = [
        {name for name in names if 2 * sum(meets(found, name) for found in networks) > len(networks)}
        for networks in able
    ]
    valid = sum(bool(shared) for shared in each)
    asked = [name for name in names if 2 * sum(name in shared for shared in each) >= valid]
    most: dict[str, int] = {}
    for name in asked:
        most[without_eot(name)] = max(most.get(without_eot(name), 0), draws_asked(name))
    return tuple(name for name in asked if draws_asked(name) == most[without_eot(name)])


def _draws_met(row: CellRow) -> float:
    # Without noise every draw is the same: one is as good as any number.
    return int(row.spec["attack"].get("eot", 1)) if is_noisy(row) else math.inf


def _asked_of(row: CellRow) -> str:
    return row.attack if is_noisy(row) else without_eot(row.attack)
