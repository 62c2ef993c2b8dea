"""Repeated measurements of one number: over training seeds and attack seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from attacks.threat import format_eps
from bench.errors import BenchError
from bench.statistics.variance import Split
from bench.store import CellRow, Store


@dataclass(frozen=True)
class Repeats:
    """One number, measured several times.

    Attributes:
        title: what it is.
        defense, attack: of it.
        training_seeds, attack_seeds: that every combination of which was measured.
        correct: right without and under attack, [training seeds, attack seeds, draws, images].
    """

    title: str
    defense: str
    attack: str
    training_seeds: tuple[int, ...]
    attack_seeds: tuple[int, ...]
    correct: NDArray[np.float64]


def repeats(store: Store, rows: Sequence[CellRow], iterate: str) -> Repeats:
    """The largest complete table of training seeds by attack seeds among cells of one defense and attack.

    Raises:
        BenchError: the cells are of several kinds, or there are none that are valid.
    """
    valid = [row for row in rows if row.summary is not None and row.verdict != "invalid"]
    kinds = {(row.dataset, row.model, row.norm, row.eps, row.n, row.draws, row.spec["test_hash"]) for row in valid}
    if not kinds:
        raise BenchError("no valid cell matches; see: bench ls runs")
    if len(kinds) > 1:
        shown = ", ".join(sorted(f"{k[0]}/{k[1]} {k[2]} {format_eps(Fraction(k[3]))} n {k[4]}" for k in kinds))
        raise BenchError(f"these cells measure several things: {shown}; choose with --dataset, --model, --eps")
    table = {(row.seed, int(row.spec["attack_seed"])): row for row in valid}
    seeds, attack_seeds = _complete(set(table))
    parts = []
    for seed in seeds:
        outcomes = [store.outcome(table[seed, attack_seed].key) for attack_seed in attack_seeds]
        held = [outcome for outcome in outcomes if outcome is not None]
        parts.append([outcome.stands(iterate).T.astype(np.float64) for outcome in held])
    first = valid[0]
    title = f"{first.defense} under {first.attack} at {first.norm} {format_eps(Fraction(first.eps))} on {first.dataset}"
    return Repeats(title, first.defense, first.attack, seeds, attack_seeds, np.asarray(parts))


def _complete(held: set[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Training and attack seeds of which every combination is there; as many combinations as possible."""
    best: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    for chosen in sorted({frozenset(a for s, a in held if s == seed) for seed, _ in held}, key=sorted):
        seeds = tuple(sorted({s for s, _ in held if chosen <= {a for t, a in held if t == s}}))
        if len(seeds) * len(chosen) > len(best[0]) * len(best[1]):
            best = (seeds, tuple(sorted(chosen)))
    return best


def advice(found: Repeats, split: Split) -> str:
    """What to run next: first what is unknown, then what the largest part of the error comes from."""
    command = f"bench run -d {found.defense} -a {found.attack}"
    if "training seed" in split.unknown:
        return f"Next, to learn how much training seeds matter: {command} --seed 0,1,2"
    if "attack seed" in split.unknown:
        return f"Next, to learn how much attack seeds matter: {command} --attack-seed {max(found.attack_seeds) + 1}"
    largest = max((part for part in split.components if part.error is not None), key=lambda part: part.error or 0.0)
    levels = largest.levels
    more = {
        "training seed": f"--seed {','.join(map(str, range(max(found.training_seeds) + 1 + levels)))}",
        "attack seed": f"--attack-seed {max(found.attack_seeds) + 1}",
        "draw": f"--draws {4 * levels}",
    }.get(largest.source, f"-n {4 * found.correct.shape[-1]}")
    return f"Most of the error comes from the {largest.source}; four times as many levels halve it: {command} {more}"
