"""The two sides of a comparison: which of the stored networks and cells stand against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.spec import canonical_json
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
        name: of the defense.
        noisy: whether the network draws noise.
        cells: their cells by attack.
    """

    name: str
    noisy: bool
    cells: Mapping[Key, Cells]


def sides(store: Store, first: Sequence[CellRow], second: Sequence[CellRow]) -> tuple[Side, Side, tuple[str, ...]]:
    """Choose on each side the networks that were trained in one way, so that no comparison mixes trainings.

    Of all ways of the two those are taken that differ least from each other, then those that share most attacks,
    then the newest.

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
    cells = {way: _by_attack(rows) for way, rows in (one | two).items()}

    def rank(ways: tuple[str, str]) -> tuple[Any, ...]:
        a, b = ways
        shared = len({key[:5] for key in cells[a]} & {key[:5] for key in cells[b]})
        differing = len(_differing(one[a][0], two[b][0], trained))
        return bool(shared), -differing, shared, max(row.updated for row in (*one[a], *two[b])), a, b

    a, b = max(product(one, two), key=rank)
    left_out = dict.fromkeys(_left_out(one, a, trained) + _left_out(two, b, trained))
    differing = _differing(one[a][0], two[b][0], trained)
    unlike = (f"the two were trained with other {', '.join(differing)}",) if differing else ()
    names = [_called(one[a]), _called(two[b])]
    if names[0] == names[1] and a != b:
        names = [f"{name} {rows[0].key[:6]}" for name, rows in zip(names, (one[a], two[b]), strict=True)]
    return (
        Side(names[0], is_noisy(one[a][0]), cells[a]),
        Side(names[1], is_noisy(two[b][0]), cells[b]),
        (*unlike, *left_out),
    )


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


def _left_out(ways: Mapping[str, Sequence[CellRow]], chosen: str, trained: Trained) -> list[str]:
    kept, said = ways[chosen][0], []
    for way, rows in ways.items():
        if way != chosen:
            other = recipe_of(rows[0], trained)
            how = ", ".join(f"{name} {other[name]}" for name in _differing(rows[0], kept, trained)) or "another way"
            said.append(f"left out: {counted(rows)} of {_called(rows)} trained with {how}")
    return said


def counted(rows: Sequence[CellRow]) -> str:
    """How many cells, in words."""
    return f"{len(rows)} cell{'s' * (len(rows) != 1)}"


def _called(rows: Sequence[CellRow]) -> str:
    seeds = {row.seed for row in rows}
    return rows[0].defense + (f" (seed {seeds.pop()})" if len(seeds) == 1 and seeds != {0} else "")
