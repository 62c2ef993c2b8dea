"""Repeated measurements of one number: over training seeds and attack seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from attacks.threat import format_eps
from bench.again import command
from bench.errors import BenchError
from bench.names import short_name, tuned_name
from bench.sides import Network, counted, recipe_of
from bench.statistics.variance import Split
from bench.store import CellRow, Store
from bench.ways import Trained, way_of


@dataclass(frozen=True)
class Repeats:
    """One number, measured several times.

    Attributes:
        title: what it is.
        cells: one of each network and attack seed, network by network.
        training_seeds, attack_seeds: that every combination of which was measured.
        correct: right without and under attack, [training seeds, attack seeds, draws, images].
        left_out: cells of the same name that measure something else, in words; empty if there are none.
    """

    title: str
    cells: tuple[CellRow, ...]
    training_seeds: tuple[int, ...]
    attack_seeds: tuple[int, ...]
    correct: NDArray[np.float64]
    left_out: str = ""


def repeats(store: Store, rows: Sequence[CellRow], iterate: str) -> Repeats:
    """The largest complete table of training seeds by attack seeds among cells of one defense and attack.

    Of several ways in which the defense was trained, or numbers of draws, one as typed comes before one whose values a
    search found, then the one with most cells, then the newest. Of what two machines trained from one seed the one from
    here is taken, since the two began alike.

    Raises:
        BenchError: the cells are of several kinds, or there are none that are valid.
    """
    valid = [row for row in rows if row.summary is not None and row.verdict != "invalid"]
    kinds = {(row.dataset, row.model, row.attack, row.norm, row.eps, row.n, row.spec["test_hash"]) for row in valid}
    if not kinds:
        raise BenchError("no valid cell matches; see: bench ls runs")
    if len(kinds) > 1:
        shown = ", ".join(sorted(f"{k[0]}/{k[1]} {k[2]} {k[3]} {format_eps(Fraction(k[4]))} n {k[5]}" for k in kinds))
        raise BenchError(f"these cells measure several things: {shown}; choose with --dataset, --model, --eps")
    trained = store.trained()
    groups: dict[tuple[str, int], list[CellRow]] = {}
    for row in valid:
        groups.setdefault((way_of(row, trained), row.draws), []).append(row)
    chosen = max(groups.values(), key=_preference)
    home = {network.seed: network for network in sorted({_network(row) for row in chosen}, reverse=True)}
    table = {(_network(row), int(row.spec["attack_seed"])): row for row in chosen if home[row.seed] == _network(row)}
    networks, attack_seeds = _complete(set(table))
    parts = []
    for network in networks:
        outcomes = [store.outcome(table[network, attack_seed].key) for attack_seed in attack_seeds]
        held = [outcome for outcome in outcomes if outcome is not None]
        parts.append([outcome.stands(iterate).T.astype(np.float64) for outcome in held])
    first = chosen[0]
    name = short_name(first.defense)
    title = f"{name} under {first.attack} at {first.norm} {format_eps(Fraction(first.eps))} on {first.dataset}"
    others = [group for group in groups.values() if group is not chosen]
    left_out = "; ".join(f"{counted(group)} with {_how(group[0], first, trained)}" for group in others)
    cells = tuple(table[network, seed] for network in networks for seed in attack_seeds)
    seeds = tuple(network.seed for network in networks)
    return Repeats(title, cells, seeds, attack_seeds, np.asarray(parts), left_out)


def _preference(group: Sequence[CellRow]) -> tuple[object, ...]:
    return tuned_name(group[0].defense) is None, len(group), max(row.updated for row in group)


def _network(row: CellRow) -> Network:
    return Network(row.seed, row.weights_key)


def _how(row: CellRow, than: CellRow, trained: Trained) -> str:
    one, other = ({**recipe_of(each, trained), "draws": each.draws} for each in (row, than))
    differing = [f"{name} {value}" for name, value in one.items() if other.get(name) != value]
    return ", ".join(differing) or "another way to train"


def _complete(held: set[tuple[Network, int]]) -> tuple[tuple[Network, ...], tuple[int, ...]]:
    """Networks and attack seeds of which every combination is there; as many combinations as possible."""
    best: tuple[tuple[Network, ...], tuple[int, ...]] = ((), ())
    for chosen in sorted({frozenset(a for n, a in held if n == network) for network, _ in held}, key=sorted):
        networks = tuple(sorted({n for n, _ in held if chosen <= {a for other, a in held if other == n}}))
        if len(networks) * len(chosen) > len(best[0]) * len(best[1]):
            best = (networks, tuple(sorted(chosen)))
    return best


def advice(found: Repeats, split: Split, store: Store) -> str:
    """What to run next: what is unknown, or more of what the largest part of the error comes from.

    Every command keeps the levels that are there, so that the next split has all of them.
    """
    given = found.cells[0].weights_key.startswith("file:")
    another = {"--attack-seed": str(max(found.attack_seeds) + 1)}
    known = [part for part in split.components if part.error is not None and part.source != "interplay"]
    largest = max(known, key=lambda part: part.error or 0.0)
    if "training seed" in split.unknown and not given:
        return f"Next, to learn how much training seeds matter: {_commands(found, store, {'--seed': '0,1,2'})}"
    if "attack seed" in split.unknown and largest.source != "training seed":
        return f"Next, to learn how much attack seeds matter: {_commands(found, store, another)}"
    more = {
        "training seed": {"--seed": ",".join(map(str, range(max(found.training_seeds) + 1 + largest.levels)))},
        "attack seed": another,
        "draw": {"--draws": str(2 * largest.levels)},
    }.get(largest.source, {"-n": str(2 * found.correct.shape[-1])})
    return (
        f"Most of the error comes from the {largest.source}; more of it makes it smaller: "
        f"{_commands(found, store, more)}"
    )


def _commands(found: Repeats, store: Store, instead: Mapping[str, str]) -> str:
    """What measured these cells, with some options changed; one command for each seed of the attack's randomness."""
    recipe = dict((store.trained().get(found.cells[0].weights_key, {}).get("spec") or {}).get("recipe") or {})
    origins = store.origins()
    seeds = found.attack_seeds[:1] if "--attack-seed" in instead else found.attack_seeds
    alike = [[row for row in found.cells if row.spec["attack_seed"] == seed] for seed in seeds]
    return " && ".join(command(cells, recipe, origins, instead) for cells in alike)
