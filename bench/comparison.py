"""Is one network more robust than another, or is the difference chance?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.threat import format_eps
from bench.errors import BenchError
from bench.names import short_name
from bench.sides import Cells, Key, Network, Side, shared, sides
from bench.statistics import Paired, compare_pairs, holm, welch
from bench.store import CellRow, Store
from bench.worst import worst_of

WORST = "worst case"
"""The name of the comparison per image over all attacks that both networks met."""


FAVOURS = "any iterate is exact without noise and estimated with it, which favours the noisy network"
"""A note on comparisons between a noisy network and one without noise."""


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
        defenses: of the first and the second, as they are stored; what these are called where that is not given.
    """

    first: str
    second: str
    level: float
    iterate: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    defenses: tuple[str, str] | None = None


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
    labels = _labels(pairs)
    found = [_under_one(store, pair, iterate, labels) for pair in pairs]
    # A worst case is over attacks of one budget on the same images.
    groups: dict[tuple[object, ...], list[_Pair]] = {}
    for pair in pairs:
        if pair.key.attack != "clean":
            groups.setdefault(pair.key[1:5], []).append(pair)
    several = [group for group in groups.values() if len(group) > 1]
    for group in several:
        found += _under_all(store, group, iterate, labels[group[0].key])
    if several and one.noisy != two.noisy:
        left_out = (*left_out, "no worst case: with noise it is estimated from few draws, without it is exact")
    elif several and not any(comparison.attack.startswith(WORST) for comparison in found):
        left_out = (*left_out, "no worst case: no network met all attacks, or the two have unlike numbers of draws")
    defenses = (one.defense, two.defense)
    return Contrast(one.name, two.name, level, iterate, _adjusted(found), left_out, defenses)


def _adjusted(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    paired = holm([comparison.paired.p for comparison in found])
    over_seeds = iter(holm([comparison.seeds.p for comparison in found if comparison.seeds]))
    return tuple(
        replace(comparison, p=p, seeds=comparison.seeds and replace(comparison.seeds, p_holm=next(over_seeds)))
        for comparison, p in zip(found, paired, strict=True)
    )


def _pairs(one: Side, two: Side) -> list[_Pair]:
    """The attacks that both met; of several seeds of one attack's randomness the lowest that both have."""
    found: dict[tuple[object, ...], list[tuple[Key, Key]]] = {}
    for place, a, b in shared(one, two):
        found.setdefault(place, []).append((a, b))
    pairs = []
    for (name, *_), keys in found.items():
        a, b = min(keys, key=lambda pair: (pair[0].attack_seed != pair[1].attack_seed, pair[0].attack_seed, pair[1]))
        pairs.append(_Pair(str(name), a, one.cells[a], two.cells[b]))
    return pairs


def _under_one(store: Store, pair: _Pair, iterate: str, labels: Mapping[Key, str]) -> Comparison:
    mine, theirs = (_standing(store, [cells], iterate) for cells in (pair.first, pair.second))
    a, b = _of_one_seed(mine, theirs)
    name, notes = pair.name + labels[pair.key], _notes([pair], a, b)
    if iterate == "any" and min(mine[a].shape[1], theirs[b].shape[1]) == 1 < max(mine[a].shape[1], theirs[b].shape[1]):
        notes = (*notes, FAVOURS)
    return Comparison(name, _compared(mine[a], theirs[b]), 1.0, _over_seeds(mine, theirs), notes)


def _under_all(store: Store, group: Sequence[_Pair], iterate: str, label: str) -> list[Comparison]:
    """The worst case per image; nothing where no network of a side met all attacks, or the two had unlike draws.

    What is worst for an image is known for certain without noise, and the less so the fewer the draws: two that are
    known unlike well cannot be compared fairly.
    """
    mine, theirs = (
        _standing(store, cells, iterate) for cells in zip(*((p.first, p.second) for p in group), strict=True)
    )
    if not mine or not theirs:
        return []
    a, b = _of_one_seed(mine, theirs)
    if mine[a].shape != theirs[b].shape:
        return []
    notes = (f"per image the worst of {len(group)} attacks", *_notes(group, a, b))
    return [Comparison(WORST + label, _compared(mine[a], theirs[b]), 1.0, _over_seeds(mine, theirs), notes)]


def _compared(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> Paired:
    return compare_pairs(one.mean(1), two.mean(1), (one.shape[1], two.shape[1]))


def _labels(pairs: Sequence[_Pair]) -> dict[Key, str]:
    """What tells comparisons under attacks of one name apart: norm, budget and number of images, where they differ."""
    attacks = [pair.key for pair in pairs if pair.key.attack != "clean"]
    norms, budgets, sizes = ({key.norm for key in attacks}, {key.eps for key in attacks}, {p.key.n for p in pairs})
    found = {}
    for pair in pairs:
        key = pair.key
        attacked = key.attack != "clean"
        parts = [f" {key.norm}"] if attacked and len(norms) > 1 else []
        parts += [f" at eps {format_eps(Fraction(key.eps))}"] if attacked and len(budgets) > 1 else []
        parts += [f", n {key.n}"] if len(sizes) > 1 else []
        found[key] = "".join(parts)
    return found


_Stands = Mapping[Network, NDArray[np.bool_]]
"""Where images stand, bool [N, draws], for each network."""


def _standing(store: Store, attacks: Sequence[Cells], iterate: str) -> _Stands:
    """In the worst case over some attacks, for the networks that met all of them."""
    met = set.intersection(*(set(cells) for cells in attacks))
    found = {}
    for network in sorted(met):
        outcomes = [store.outcome(cells[network].key) for cells in attacks]
        held = [outcome for outcome in outcomes if outcome is not None]
        found[network] = worst_of(held, iterate)
    return found


def _of_one_seed(one: Iterable[Network], two: Iterable[Network]) -> tuple[Network, Network]:
    """The networks of the lowest training seed that both sides have; without such a seed each side's own lowest."""
    a, b = ({network.seed: network for network in sorted(side, reverse=True)} for side in (one, two))
    common = a.keys() & b.keys()
    return (a[min(common)], b[min(common)]) if common else (a[min(a)], b[min(b)])


def _over_seeds(one: _Stands, two: _Stands) -> SeedContrast | None:
    """None where either side has a single seed, or all seeds agree, which says nothing on how much seeds differ."""
    mine, theirs = _by_seed(one), _by_seed(two)
    if min(len(mine), len(theirs)) < 2 or len({*mine}) == len({*theirs}) == 1:
        return None
    found = welch(mine, theirs)
    return SeedContrast(mine, theirs, found.difference, found.low, found.high, found.p)


def _by_seed(stands: _Stands) -> tuple[float, ...]:
    """A rate for each training seed. What two machines trained from one seed began alike, and is averaged."""
    rates: dict[int, list[float]] = {}
    for network in sorted(stands):
        rates.setdefault(network.seed, []).append(float(stands[network].mean()))
    return tuple(float(np.mean(values)) for values in rates.values())


def _notes(pairs: Sequence[_Pair], a: Network, b: Network) -> tuple[str, ...]:
    """What keeps two networks from being measured quite alike under some attacks, and doubts about any cell used."""
    notes: dict[str, None] = {}
    for pair in pairs:
        one, two = pair.first[a], pair.second[b]
        if max(one.draws, two.draws) > 1:
            notes["noise"] = None
        old, new = (dict(row.spec["attack"]) for row in (one, two))
        differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name) and name != "eot")
        if differing and pair.key.attack != "clean":
            notes[f"the attacks differ in {', '.join(differing)}"] = None
        if old.get("eot", 1) != new.get("eot", 1):
            notes["gradients are means over draws for the noisy one only"] = None
        if one.spec["attack_seed"] != two.spec["attack_seed"]:
            notes["other attack seeds"] = None
        if one.seed != two.seed:
            notes[f"training seed {one.seed} against {two.seed}"] = None
        for row in (*pair.first.values(), *pair.second.values()):
            if row.verdict == "suspect":
                notes[f"suspect: {short_name(row.defense)} under {row.attack}"] = None
    return tuple(notes)


def _nothing_shared(one: Side, two: Side) -> str:
    def met(side: Side) -> str:
        rows = [row for cells in side.cells.values() for row in cells.values()]
        return ", ".join(sorted({f"{row.attack} at {row.eps} on {row.n} of {row.dataset}" for row in rows})[:4])

    return (
        f"nothing to compare: no attack of the same budget on the same images. {one.name} has {met(one)}; "
        f"{two.name} has {met(two)}"
    )
