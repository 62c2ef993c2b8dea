"""The two sides of a comparison: which of the stored networks and cells stand against each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from bench.canonical import canonical_json
from bench.errors import BenchError
from bench.names import Tuned, short_name, short_names, tuned_name, without_eot
from bench.store import CellRow, Store
from bench.ways import Trained, is_noisy, way_of


class Network(NamedTuple):
    """One trained network: its seed, and what its weights are called."""

    seed: int
    weights: str


class Key(NamedTuple):
    """What two cells must share to be compared, and the seed of the attack's randomness."""

    attack: str
    norm: str
    eps: str
    test_hash: str
    n: int
    attack_seed: int


Cells = Mapping[Network, CellRow]
"""One cell of each network, all under one attack."""


@dataclass(frozen=True)
class Side:
    """Networks that were trained in one way, by seed.

    Attributes:
        name: of the defense, as a reader is told it.
        defense: the same, as it is stored.
        noisy: whether the network draws noise.
        cells: their cells by attack.
    """

    name: str
    defense: str
    noisy: bool
    cells: Mapping[Key, Cells]


def sides(store: Store, first: Sequence[CellRow], second: Sequence[CellRow]) -> tuple[Side, Side, tuple[str, ...]]:
    """Choose on each side the networks that were trained in one way, so that no comparison mixes trainings.

    Of all ways of the two that met an attack in common those are taken that differ least from each other, then those
    that share most attacks, then the newest. Given weights, of which nobody knows how they were trained, differ most.

    That the values of one side were found by a search, and those of the other typed, is a difference, too; what each
    one's search chose is none. So of two defenses that are both stored as typed and as tuned the two as typed are
    compared, of which no more is known to differ than the defense, and whose result does not change once somebody
    tunes; where one is stored as tuned only, the two tuned ones are.

    Args:
        store: knows how networks were trained.
        first, second: finished cells of one defense each; invalid ones are left out.

    Returns:
        the sides, and what is left out, in words.

    Raises:
        BenchError: a side has no valid cell.
    """
    trained = store.trained()
    one, two = (_ways(rows, trained) for rows in (first, second))
    left, right = ({way: _side(rows) for way, rows in ways.items()} for ways in (one, two))

    def rank(ways: tuple[str, str]) -> tuple[Any, ...]:
        a, b = ways
        met = len({place for place, *_ in shared(left[a], right[b]) if place[0] != "clean"})
        differing = _unlike(one[a][0], two[b][0], trained)
        unlike = _UNKNOWN if _given(one[a][0]) != _given(two[b][0]) else len(differing) + _one_tuned(one[a], two[b])
        typed = tuned_name(one[a][0].defense) is None
        return bool(met), -unlike, typed, met, max(row.updated for row in (*one[a], *two[b])), a, b

    # Under a name that fits several ways of a defense one side may hold what the other one is.
    pairs = [(a, b) for a, b in product(one, two) if _keys(one[a]) != _keys(two[b])]
    a, b = max(pairs or product(one, two), key=rank)
    names = short_names(("", rows[0].defense) for rows in (*one.values(), *two.values()))
    left_out = dict.fromkeys(_left_out(one, a, b, names, trained) + _left_out(two, b, a, names, trained))
    unlike = _apart(one[a], two[b], trained)
    mine, theirs = left[a], right[b]
    if mine.name == theirs.name and mine.defense != theirs.defense:
        mine, theirs = (replace(side, name=_called(rows, str)) for side, rows in ((mine, one[a]), (theirs, two[b])))
    if mine.name == theirs.name:
        mine, theirs = (
            replace(side, name=f"{side.name} {rows[0].key[:6]}") for side, rows in ((mine, one[a]), (theirs, two[b]))
        )
    return mine, theirs, (*unlike, *left_out)


_UNKNOWN = 99
"""More than the parts of a recipe in which two known ones can differ."""


def shared(one: Side, two: Side) -> list[tuple[tuple[Any, ...], Key, Key]]:
    """Attacks that both sides met, on the same images: what they have in common, and the key on each side.

    A mean over draws of no noise is none, and is dropped from the attack's name: so where only one of the two is noisy
    names are compared without it. The common name is the longer one.
    """
    named = without_eot if one.noisy != two.noisy else str
    return [
        ((max(a.attack, b.attack, key=len), *a[1:5]), a, b)
        for a, b in product(one.cells, two.cells)
        if named(a.attack) == named(b.attack) and a[1:5] == b[1:5]
    ]


def _side(rows: Sequence[CellRow]) -> Side:
    return Side(_called(rows), rows[0].defense, is_noisy(rows[0]), _by_attack(rows))


def _keys(rows: Sequence[CellRow]) -> set[str]:
    return {row.key for row in rows}


def _given(row: CellRow) -> bool:
    return row.weights_key.startswith("file:")


def _ways(rows: Sequence[CellRow], trained: Trained) -> dict[str, list[CellRow]]:
    ways: dict[str, list[CellRow]] = {}
    for row in rows:
        if row.summary is not None and row.verdict != "invalid":
            ways.setdefault(way_of(row, trained), []).append(row)
    if not ways:
        raise BenchError(f"'{rows[0].defense}' has no valid cell; see: bench show {rows[0].key[:12]}")
    return ways


def _by_attack(rows: Sequence[CellRow]) -> dict[Key, dict[Network, CellRow]]:
    """Of several cells of one network under one attack the one with most scoring draws, then the newest."""
    found: dict[Key, dict[Network, CellRow]] = {}
    for row in rows:
        test_hash, attack_seed = str(row.spec["test_hash"]), int(row.spec["attack_seed"])
        key = Key(row.attack, row.norm, row.eps, test_hash, row.n, attack_seed)
        if row.spec["attack"]["family"] == "clean":
            key = Key("clean", "", "", test_hash, row.n, 0)
        cells = found.setdefault(key, {})
        network = Network(row.seed, row.weights_key)
        held = cells.get(network)
        if held is None or (held.draws, held.updated) < (row.draws, row.updated):
            cells[network] = row
    return found


def recipe_of(row: CellRow, trained: Trained) -> dict[str, Any]:
    """What a network was trained with besides its defense: recipe, time steps, neuron; of given weights the latter."""
    model, spec = row.spec["model"], trained.get(row.weights_key, {}).get("spec") or {}
    neuron = {name: model["neuron"][name] for name in ("decay", "surrogate")}
    return {"dataset": row.dataset, "model": model["name"], "T": model["T"], **neuron, **spec.get("recipe", {})}


def _differing(a: CellRow, b: CellRow, trained: Trained) -> list[str]:
    one, two = recipe_of(a, trained), recipe_of(b, trained)
    # Of given weights nobody knows the recipe: that is no difference.
    return [name for name in one if name in two and canonical_json(one[name]) != canonical_json(two[name])]


def _tuned(one: Sequence[CellRow], two: Sequence[CellRow]) -> tuple[Tuned | None, Tuned | None]:
    return tuned_name(one[0].defense), tuned_name(two[0].defense)


def _one_tuned(one: Sequence[CellRow], two: Sequence[CellRow]) -> bool:
    """Whether a search found the values of one of two networks, and not those of the other."""
    a, b = _tuned(one, two)
    return (a is None) != (b is None)


def _unlike(a: CellRow, b: CellRow, trained: Trained) -> list[str]:
    """In what two networks were trained unlike, but for what each one's own search chose."""
    one, two = _tuned([a], [b])
    chosen = {text.partition(" ")[0] for tuned in (one, two) if one and two and tuned for text in tuned.recipe}
    return [name for name in _differing(a, b, trained) if name not in chosen]


def _apart(one: Sequence[CellRow], two: Sequence[CellRow], trained: Trained) -> tuple[str, ...]:
    """What of two trainings a reader must know who compares them, in words."""
    (a, b), said = _tuned(one, two), []
    unlike = _unlike(one[0], two[0], trained)
    if unlike:
        said.append(f"the two were trained with other {', '.join(unlike)}")
    if _one_tuned(one, two):
        said.append(f"only {short_name((one if a else two)[0].defense)} has values that a search found")
    if a and b and a.effort != b.effort:
        said.append(f"searched for unlike long: {a.effort} against {b.effort}")
    return tuple(said)


def _left_out(
    ways: Mapping[str, Sequence[CellRow]],
    chosen: str,
    other_side: str,
    names: Mapping[tuple[object, str], str],
    trained: Trained,
) -> list[str]:
    kept, said = ways[chosen][0], []
    for way, rows in ways.items():
        if way not in (chosen, other_side):
            other = recipe_of(rows[0], trained)
            how = ", ".join(f"{name} {other[name]}" for name in _differing(rows[0], kept, trained)) or "another way"
            name = _called(rows, lambda stored: names["", stored])
            said.append(f"left out: {counted(rows)} of {name} trained with {how}")
    return said


def counted(rows: Sequence[CellRow]) -> str:
    """How many cells, in words."""
    return f"{len(rows)} cell{'s' * (len(rows) != 1)}"


def _called(rows: Sequence[CellRow], named: Callable[[str], str] = short_name) -> str:
    seeds = {row.seed for row in rows}
    return named(rows[0].defense) + (f" (seed {seeds.pop()})" if len(seeds) == 1 and seeds != {0} else "")
