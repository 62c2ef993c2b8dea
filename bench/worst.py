"""The worst case over stored attacks, per image, and what each attack adds to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.base import Attack
from bench.registry import ATTACKS
from bench.spec import canonical_json
from bench.statistics import Chosen, Rate, lower, wilson, worst_case
from bench.store import CellRow, Store


@dataclass(frozen=True)
class Network:
    """One network under several attacks of one threat model, measured on the same images.

    Attributes:
        defense, dataset, model, seed, norm, eps, n: what it is.
        standing: attack -> where each image is right without and under it, bool [n, draws].
        passes: attack -> forward and backward passes per image that it states.
    """

    defense: str
    dataset: str
    model: str
    seed: int
    norm: str
    eps: str
    n: int
    standing: Mapping[str, NDArray[np.bool_]]
    passes: Mapping[str, int]


@dataclass(frozen=True)
class Step:
    """One attack joining the worst case.

    Attributes:
        attack: its name.
        alone: robust accuracy under it alone.
        together: robust accuracy under it and all before it, per image the worst (`statistics.worst_case`).
        passes: forward and backward passes per image of all so far, as if each image met every attack.
    """

    attack: str
    alone: Rate
    together: Rate
    passes: int


def networks(store: Store, rows: Sequence[CellRow], iterate: str) -> list[Network]:
    """Group finished, valid cells by network, threat model and images; those under one attack only are left out.

    Args:
        store: where the outcomes are.
        rows: cells.
        iterate: `last` or `any`.
    """
    groups: dict[str, list[CellRow]] = {}
    for row in rows:
        if row.summary is None or row.verdict == "invalid":
            continue
        spec = row.spec
        same = [row.weights_key, spec["model"], spec["test_hash"], row.n, row.draws, row.norm, row.eps, spec["dtype"]]
        groups.setdefault(canonical_json([*same, spec["attack_seed"]]), []).append(row)
    found = []
    for group in groups.values():
        standing: dict[str, NDArray[np.bool_]] = {}
        passes: dict[str, int] = {}
        for row in group:
            outcome = store.outcome(row.key)
            assert outcome is not None
            if row.spec["attack"]["family"] == "clean":
                continue
            standing[row.attack] = outcome.stands(iterate)
            passes[row.attack] = passes_of(row)
        if len(standing) > 1:
            first = group[0]
            found.append(
                Network(
                    first.defense, first.dataset, first.model, first.seed, first.norm, first.eps, first.n,
                    standing, passes,
                )
            )  # fmt: skip
    return found


def worst_of(stands: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The worst case over attacks, of as many scoring draws as all of them have: draw d is the same noise in all.

    Args:
        stands: for each attack on one network where images stand, bool [N, draws].
    """
    draws = min(each.shape[1] for each in stands)
    return worst_case([each[:, :draws] for each in stands])


def passes_of(row: CellRow) -> int:
    """Forward and backward passes per image that an attack states; of a plug-in's, those counted."""
    attack = row.spec["attack"]
    if attack["family"] not in ATTACKS:
        return (row.forwards + row.backwards) // row.n
    known: Attack = ATTACKS.get(attack["family"])
    forwards, backwards = known.cost(attack["steps"])
    return int((forwards + backwards) * attack["restarts"] * attack.get("eot", 1))


def cheapest_order(subjects: Sequence[Network]) -> list[str]:
    """Attacks that all networks met, in the order that lowers their summed robust accuracy fastest per pass.

    Greedy: next comes the attack that breaks most further images per pass that it costs on the images still
    standing; attacks that break nothing more are left out.
    """
    names = sorted(set.intersection(*(set(subject.standing) for subject in subjects)))
    left = [_untouched(subject) for subject in subjects]
    order: list[str] = []
    while True:
        gains = {name: _gain(name, subjects, left) for name in names if name not in order}
        best = max(gains, key=lambda name: gains[name], default=None)
        if best is None or gains[best] <= 0:
            return order
        order.append(best)
        left = [lower(now, Chosen.only(subject.standing[best])) for now, subject in zip(left, subjects, strict=True)]


def _untouched(subject: Network) -> Chosen:
    """Before any attack every image stands."""
    return Chosen.only(np.ones_like(next(iter(subject.standing.values()))))


def _gain(name: str, subjects: Sequence[Network], left: Sequence[Chosen]) -> float:
    broken, cost = 0.0, 0.0
    for now, subject in zip(left, subjects, strict=True):
        joined = lower(now, Chosen.only(subject.standing[name]))
        broken += float(now.stands.mean(1).sum() - joined.stands.mean(1).sum())
        cost += float(now.stands.any(1).sum()) * max(subject.passes[name], 1)
    return broken / cost if cost else 0.0


def steps(subject: Network, order: Sequence[str]) -> list[Step]:
    """What each attack adds to the worst case, in a given order."""
    left, passes, found = _untouched(subject), 0, []
    for name in order:
        left = lower(left, Chosen.only(subject.standing[name]))
        passes += subject.passes[name]
        alone, together = (
            wilson(float(stands.mean(1).sum()), subject.n) for stands in (subject.standing[name], left.stands)
        )
        found.append(Step(name, alone, together, passes))
    return found
