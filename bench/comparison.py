"""Is one network more robust than another, or is the difference chance?"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.threat import format_eps
from bench.errors import BenchError
from bench.plan import without_eot
from bench.statistics import Paired, compare_pairs, holm, welch
from bench.store import CellRow, Store

WORST = "worst case"
"""The name of the comparison per image over all attacks that both networks met."""


@dataclass(frozen=True)
class SeedContrast:
    """What the training seeds say of a difference between two recipes.

    Attributes:
        first, second: rate of each seed.
        difference: of their means.
        low, high: Welch's t-interval.
        p: two-sided.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    difference: float
    low: float
    high: float
    p: float


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
    """

    first: str
    second: str
    level: float
    iterate: str
    comparisons: tuple[Comparison, ...]


def compare(
    store: Store, first: Sequence[CellRow], second: Sequence[CellRow], *, level: float = 0.05, iterate: str = "last"
) -> Contrast:
    """Compare two sets of cells: of the same attacks, on the same images.

    For each attack an exact McNemar test (a sign-flip test where a network is noisy) on the images of the lowest
    training seed that both have, Holm over all of them, and where both have several seeds a Welch t-test over the
    seeds, which speaks of the recipes and not only of two trained networks.

    Args:
        store: where the outcomes are.
        first, second: finished cells of one defense each, any seeds and attacks.
        level: of the family of tests.
        iterate: `last` or `any`.

    Raises:
        BenchError: the two have no attack, test set and number of images in common.
    """
    one, two = _by_attack(first), _by_attack(second)
    shared = [key for key in one if key in two and set(one[key]) & set(two[key])] or _any_seed(one, two)
    if not shared:
        raise BenchError(_nothing_shared(first, second))
    found: list[tuple[str, Paired, SeedContrast | None, tuple[str, ...]]] = []
    # A worst case is over attacks of one budget.
    stands: dict[_Key, list[tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]]]] = {}
    budgets = {key[1:3] for key in shared if key[0] != "clean"}
    for key in shared:
        a, b = _rows_of_one_seed(one[key], two[key])
        mine, theirs = _standing(store, a, iterate), _standing(store, b, iterate)
        draws = (a.draws, b.draws)
        if key[0] != "clean":
            stands.setdefault((*key[1:], draws), []).append((mine, theirs, draws))
        seeds = _over_seeds(one[key], two[key], iterate)
        name = _name(a, key) + (_at(key[2]) if len(budgets) > 1 and key[0] != "clean" else "")
        found.append((name, compare_pairs(mine, theirs, draws), seeds, _notes(a, b)))
    for budget, pairs in stands.items():
        if len(pairs) < 2:
            continue
        worst = [np.minimum.reduce(side) for side in ([pair[0] for pair in pairs], [pair[1] for pair in pairs])]
        noise = ("noise",) if max(pairs[0][2]) > 1 else ()
        name = WORST + (_at(budget[1]) if len(budgets) > 1 else "")
        paired = compare_pairs(worst[0], worst[1], pairs[0][2])
        found.append((name, paired, None, (f"per image the worst of {len(pairs)} attacks", *noise)))
    adjusted = holm([paired.p for _, paired, *_ in found])
    comparisons = tuple(
        Comparison(name, paired, p, seeds, notes)
        for (name, paired, seeds, notes), p in zip(found, adjusted, strict=True)
    )
    return Contrast(_called(first), _called(second), level, iterate, comparisons)


def sentence(contrast: Contrast, comparison: Comparison) -> str:
    """In one sentence: which is more robust, by how much, and whether that is real."""
    paired = comparison.paired
    first, second = contrast.first, contrast.second
    under = "without attack" if comparison.attack == "clean" else f"under {comparison.attack}"
    if comparison.attack.startswith(WORST):
        under = f"in the {WORST} over the attacks{comparison.attack.removeprefix(WORST)}"
    test = "exact McNemar" if "noise" not in comparison.notes else "exact sign-flip"
    real = comparison.p < contrast.level
    rates = [paired.first.value, paired.second.value]
    ends = sorted(abs(end) for end in (paired.low, paired.high)) if real else [paired.low, paired.high]
    figures = (
        f"{100 * (max(rates) if real else rates[0]):.1f} against {100 * (min(rates) if real else rates[1]):.1f} on the "
        f"same {paired.n} images, 95% interval of the difference {100 * ends[0]:.1f} to {100 * ends[1]:.1f}; {test} "
        f"p = {comparison.p:.2g}"
        + (f", Holm over {len(contrast.comparisons)}" if len(contrast.comparisons) > 1 else "")
    )
    if not real:
        head = f"{first} and {second} cannot be told apart {under}"
    else:
        more, less = (first, second) if paired.difference > 0 else (second, first)
        head = f"{more} is right on {100 * abs(paired.difference):.1f} points more images than {less} {under}"
    seeds = comparison.seeds
    if seeds is None:
        verdict = "real for these two trained networks; other training seeds may differ" if real else "not real"
    else:
        counts = f"{len(seeds.first)} and {len(seeds.second)} training seeds"
        over = f"over {counts} {100 * seeds.low:+.1f} to {100 * seeds.high:+.1f}, p = {seeds.p:.2g}"
        agrees = seeds.p < contrast.level and seeds.difference * paired.difference > 0
        if real and agrees:
            verdict = f"real, and of the recipes: {over}"
        elif real:
            verdict = f"real for the networks of one seed, not shown for the recipes: {over}"
        else:
            verdict = f"not real; {over}"
    doubts = [note for note in comparison.notes if note.startswith("suspect")]
    return f"{head} ({figures}): {verdict}." + "".join(f" Doubtful: {note}." for note in doubts)


_Key = tuple[Any, ...]


def _by_attack(rows: Sequence[CellRow]) -> dict[_Key, dict[int, CellRow]]:
    """(what must agree) -> training seed -> the newest cell."""
    groups: dict[_Key, dict[int, CellRow]] = {}
    for row in rows:
        if row.summary is None or row.verdict == "invalid":
            continue
        spec = row.spec
        attack = without_eot(row.attack)
        if spec["attack"]["family"] == "clean":
            attack = "clean"
        key = (attack, row.norm, row.eps if attack != "clean" else "", spec["test_hash"], row.n)
        groups.setdefault(key, {})[row.seed] = row
    return groups


def _any_seed(one: dict[_Key, dict[int, CellRow]], two: dict[_Key, dict[int, CellRow]]) -> list[_Key]:
    """Where no training seed is shared, any will do: cells named one by one."""
    return [key for key in one if key in two]


def _rows_of_one_seed(one: dict[int, CellRow], two: dict[int, CellRow]) -> tuple[CellRow, CellRow]:
    common = sorted(set(one) & set(two))
    if common:
        return one[common[0]], two[common[0]]
    return one[min(one)], two[min(two)]


def _standing(store: Store, row: CellRow, iterate: str) -> NDArray[np.float64]:
    outcome = store.outcome(row.key)
    assert outcome is not None
    return outcome.robust_last if iterate == "last" else outcome.robust_any


def _over_seeds(one: dict[int, CellRow], two: dict[int, CellRow], iterate: str) -> SeedContrast | None:
    if min(len(one), len(two)) < 2:
        return None
    mine, theirs = (tuple(_rate(rows[seed], iterate) for seed in sorted(rows)) for rows in (one, two))
    found = welch(mine, theirs)
    return SeedContrast(mine, theirs, found.difference, found.low, found.high, found.p)


def _rate(row: CellRow, iterate: str) -> float:
    assert row.summary is not None
    return (row.summary.robust if iterate == "last" else row.summary.robust_any).value


def _at(eps: str) -> str:
    return f" at eps {format_eps(Fraction(eps))}"


def _name(row: CellRow, key: _Key) -> str:
    return str(key[0]) if key[0] == "clean" else row.attack


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
    notes += [f"suspect: {row.defense} under {row.attack}" for row in (a, b) if row.verdict == "suspect"]
    return tuple(notes)


def _called(rows: Sequence[CellRow]) -> str:
    seeds = {row.seed for row in rows}
    places = {row.defense for row in rows}
    return places.pop() + (f" (seed {seeds.pop()})" if len(seeds) == 1 and seeds != {0} else "")


def _nothing_shared(first: Sequence[CellRow], second: Sequence[CellRow]) -> str:
    def met(rows: Sequence[CellRow]) -> str:
        return ", ".join(sorted({f"{row.attack} at {row.eps} on {row.n} of {row.dataset}" for row in rows})[:4])

    return (
        f"nothing to compare: no attack of the same budget on the same images. {_called(first)} has {met(first)}; "
        f"{_called(second)} has {met(second)}"
    )
