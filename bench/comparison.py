"""Is one network more robust than another, or is the difference chance?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.threat import format_eps
from bench.errors import BenchError
from bench.plan import without_eot
from bench.sides import Cells, Key, Network, Side, sides
from bench.statistics import Paired, compare_pairs, holm, welch
from bench.store import CellRow, Store
from bench.worst import worst_of

WORST = "worst case"
"""The name of the comparison per image over all attacks that both networks met."""


@dataclass(frozen=True)
class SeedContrast:
    """What the training seeds say of a difference between two recipes.

    Attributes:
        first, second: rate of each network.
        difference: of their means.
        low, high: Welch's t-interval.
        p: two-sided.
        p_holm: the same, adjusted over all comparisons made together.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    difference: float
    low: float
    high: float
    p: float
    p_holm: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """Two networks under one attack, on the same images.

    Attributes:
        attack: its name, `clean`, or `WORST`.
        paired: the first against the second, of the lowest training seed that both have.
        p: Holm's adjusted p-value over all comparisons made together.
        seeds: what training seeds say; None where either has a single one.
        notes: what keeps the two from being quite the same measurement, and doubts.
    """

    attack: str
    paired: Paired
    p: float
    seeds: SeedContrast | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contrast:
    """All comparisons of two networks.

    Attributes:
        first, second: what they are called.
        level, iterate: of the tests.
        comparisons: by attack; the worst case last where there are several attacks.
        notes: what was stored under these names and is not compared.
    """

    first: str
    second: str
    level: float
    iterate: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()


class _Pair(NamedTuple):
    """The cells of both sides under one attack."""

    name: str
    key: Key
    first: Cells
    second: Cells


def compare(
    store: Store, first: Sequence[CellRow], second: Sequence[CellRow], *, level: float = 0.05, iterate: str = "last"
) -> Contrast:
    """Compare two sets of cells: of the same attacks, on the same images.

    For each attack, and for the worst case per image over all of them, an exact McNemar test (a sign-flip test where a
    network is noisy) on the images of the lowest training seed that both have, Holm over all of them; and where both
    have several seeds a Welch t-test over the seeds, which speaks of the recipes and not only of two trained networks,
    Holm over these.

    Args:
        store: where the outcomes are.
        first, second: finished cells of one defense each, any seeds and attacks. Of several ways in which one was
            trained those are compared that differ least between the two (`sides`).
        level: of each family of tests.
        iterate: `last` or `any`.

    Raises:
        BenchError: the two have no attack, test set and number of images in common.
    """
    one, two, left_out = sides(store, first, second)
    pairs = _pairs(one, two)
    if not pairs:
        raise BenchError(_nothing_shared(one, two))
    budgets = {pair.key[1:3] for pair in pairs if pair.key.attack != "clean"}
    found = [_under_one(store, pair, iterate, len(budgets) > 1) for pair in pairs]
    # A worst case is over attacks of one budget on the same images.
    groups: dict[tuple[object, ...], list[_Pair]] = {}
    for pair in pairs:
        if pair.key.attack != "clean":
            groups.setdefault(pair.key[1:5], []).append(pair)
    for group in groups.values():
        found += _under_all(store, group, iterate, len(budgets) > 1) if len(group) > 1 else []
    return Contrast(one.name, two.name, level, iterate, _adjusted(found), left_out)


def _adjusted(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    paired = holm([comparison.paired.p for comparison in found])
    over_seeds = iter(holm([comparison.seeds.p for comparison in found if comparison.seeds]))
    return tuple(
        replace(comparison, p=p, seeds=comparison.seeds and replace(comparison.seeds, p_holm=next(over_seeds)))
        for comparison, p in zip(found, paired, strict=True)
    )


def _pairs(one: Side, two: Side) -> list[_Pair]:
    """The attacks that both met; of several seeds of one attack's randomness the lowest that both have."""
    # A mean over draws of no noise is none, and is dropped from the attack's name.
    named = without_eot if one.noisy != two.noisy else str
    found: dict[tuple[object, ...], list[tuple[Key, Key]]] = {}
    for a, b in product(one.cells, two.cells):
        if named(a.attack) == named(b.attack) and a[1:5] == b[1:5]:
            found.setdefault((max(a.attack, b.attack, key=len), *a[1:5]), []).append((a, b))
    pairs = []
    for (name, *_), keys in found.items():
        a, b = min(keys, key=lambda pair: (pair[0].attack_seed != pair[1].attack_seed, pair[0].attack_seed, pair[1]))
        pairs.append(_Pair(str(name), a, one.cells[a], two.cells[b]))
    return pairs


def _under_one(store: Store, pair: _Pair, iterate: str, budget: bool) -> Comparison:
    mine, theirs = _standing(store, pair.first, iterate), _standing(store, pair.second, iterate)
    a, b = _of_one_seed(mine, theirs)
    rows = pair.first[a], pair.second[b]
    name = pair.name + (_at(pair.key) if budget and pair.key.attack != "clean" else "")
    return Comparison(name, _compared(mine[a], theirs[b]), 1.0, _over_seeds(mine, theirs), _notes(*rows))


def _under_all(store: Store, group: Sequence[_Pair], iterate: str, budget: bool) -> list[Comparison]:
    """The worst case per image; nothing where no network of a side met all attacks."""
    mine, theirs = (
        _worst(store, [pair.first for pair in group], iterate),
        _worst(store, [pair.second for pair in group], iterate),
    )
    if not mine or not theirs:
        return []
    a, b = _of_one_seed(mine, theirs)
    draws = mine[a].shape[1], theirs[b].shape[1]
    noise = ("noise",) if max(draws) > 1 else ()
    suspect = {
        f"suspect: {row.defense} under {row.attack}"
        for pair in group
        for row in (pair.first[a], pair.second[b])
        if row.verdict == "suspect"
    }
    notes = (f"per image the worst of {len(group)} attacks", *noise, *sorted(suspect))
    name = WORST + (_at(group[0].key) if budget else "")
    return [Comparison(name, _compared(mine[a], theirs[b]), 1.0, _over_seeds(mine, theirs), notes)]


def _compared(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> Paired:
    return compare_pairs(one.mean(1), two.mean(1), (one.shape[1], two.shape[1]))


_Stands = Mapping[Network, NDArray[np.bool_]]
"""Where images stand, bool [N, draws], for each network."""


def _standing(store: Store, cells: Cells, iterate: str) -> _Stands:
    found = {}
    for network, row in cells.items():
        outcome = store.outcome(row.key)
        assert outcome is not None
        found[network] = outcome.stands(iterate)
    return found


def _worst(store: Store, attacks: Sequence[Cells], iterate: str) -> _Stands:
    each = [_standing(store, cells, iterate) for cells in attacks]
    met = set.intersection(*(set(stands) for stands in each))
    return {network: worst_of([stands[network] for stands in each]) for network in sorted(met)}


def _of_one_seed(one: Iterable[Network], two: Iterable[Network]) -> tuple[Network, Network]:
    """The networks of the lowest training seed that both sides have; without such a seed each side's own lowest."""
    a, b = ({network.seed: network for network in sorted(side, reverse=True)} for side in (one, two))
    common = a.keys() & b.keys()
    return (a[min(common)], b[min(common)]) if common else (a[min(a)], b[min(b)])


def _over_seeds(one: _Stands, two: _Stands) -> SeedContrast | None:
    if min(len(one), len(two)) < 2:
        return None
    mine, theirs = (tuple(float(side[network].mean()) for network in sorted(side)) for side in (one, two))
    found = welch(mine, theirs)
    return SeedContrast(mine, theirs, found.difference, found.low, found.high, found.p)


def _at(key: Key) -> str:
    return f" at eps {format_eps(Fraction(key.eps))}"


def _notes(a: CellRow, b: CellRow) -> tuple[str, ...]:
    notes = []
    if max(a.draws, b.draws) > 1:
        notes.append("noise")
    old, new = (dict(row.spec["attack"]) for row in (a, b))
    differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name) and name != "eot")
    if differing:
        notes.append(f"the attacks differ in {', '.join(differing)}")
    if old.get("eot", 1) != new.get("eot", 1):
        notes.append("gradients are means over draws for the noisy one only")
    if a.spec["attack_seed"] != b.spec["attack_seed"]:
        notes.append("other attack seeds")
    if a.seed != b.seed:
        notes.append(f"training seed {a.seed} against {b.seed}")
    notes += [f"suspect: {row.defense} under {row.attack}" for row in (a, b) if row.verdict == "suspect"]
    return tuple(notes)


def _nothing_shared(one: Side, two: Side) -> str:
    def met(side: Side) -> str:
        rows = [row for cells in side.cells.values() for row in cells.values()]
        return ", ".join(sorted({f"{row.attack} at {row.eps} on {row.n} of {row.dataset}" for row in rows})[:4])

    return (
        f"nothing to compare: no attack of the same budget on the same images. {one.name} has {met(one)}; "
        f"{two.name} has {met(two)}"
    )
