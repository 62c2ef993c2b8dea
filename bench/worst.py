"""The worst case over stored attacks, per image, and what each attack adds to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.canonical import canonical_json
from bench.outcome import Outcome
from bench.registry import ATTACKS
from bench.statistics import Rate, wilson, worst_case
from bench.store import CellRow, Store

if TYPE_CHECKING:
    from attacks.base import Attack


@dataclass(frozen=True)
class Network:
    """One network under several attacks of one threat model, measured on the same images.

    Attributes:
        defense, dataset, model, seed, norm, eps, n: what it is.
        outcomes: attack -> its outcome, all of the same images and draws.
        passes: attack -> forward and backward passes per image that it states.
        iterate: `last` or `any`.
    """

    defense: str
    dataset: str
    model: str
    seed: int
    norm: str
    eps: str
    n: int
    outcomes: Mapping[str, Outcome]
    passes: Mapping[str, int]
    iterate: str


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
        if row.summary is None or row.verdict == "invalid" or (iterate == "last" and row.stops_early):
            continue
        spec = row.spec
        same = [row.weights_key, spec["model"], spec["test_hash"], row.n, row.draws, row.norm, row.eps, spec["dtype"]]
        same += [spec.get("noise_version", 1), spec.get("recordings", ""), spec["attack"].get("rules", "")]
        groups.setdefault(canonical_json([*same, spec["attack_seed"]]), []).append(row)
    found = []
    for group in groups.values():
        outcomes: dict[str, Outcome] = {}
        passes: dict[str, int] = {}
        for row in group:
            outcome = store.outcome(row.key)
            assert outcome is not None
            if row.spec["attack"]["family"] == "clean":
                continue
            outcomes[row.attack] = outcome
            passes[row.attack] = passes_of(row)
        if len(outcomes) > 1:
            first = group[0]
            found.append(
                Network(
                    first.defense, first.dataset, first.model, first.seed, first.norm, first.eps, first.n,
                    outcomes, passes, iterate,
                )
            )  # fmt: skip
    return found


def worst_of(outcomes: Sequence[Outcome], iterate: str) -> NDArray[np.bool_]:
    """Where images stand in the worst case over attacks on one network, bool [N, draws].

    Of as many scoring draws as all of them have, since draw d is the same noise in all.

    Args:
        outcomes: at least one, of the same images.
        iterate: with `any` each candidate of an attack counts as an attack.
    """
    if len(outcomes) == 1:
        # No choice between attacks: the attack's own rate, as every table shows it.
        return outcomes[0].stands(iterate)
    draws = min(outcome.clean.shape[1] for outcome in outcomes)
    kinds = ("last",) if iterate == "last" else ("last", "best")
    return worst_case([(outcome.clean & getattr(outcome, kind))[:, :draws] for outcome in outcomes for kind in kinds])


def passes_of(row: CellRow) -> int:
    """Forward and backward passes per image that an attack states; of a plug-in's, those counted."""
    attack = row.spec["attack"]
    if attack["family"] not in ATTACKS:
        return (row.forwards + row.backwards) // row.n
    known: Attack = ATTACKS.get(attack["family"])
    forwards, backwards = known.cost(attack["steps"])
    return int((forwards + backwards) * attack["restarts"] * attack.get("eot", 1))


def in_common(subjects: Sequence[Network]) -> list[str]:
    """Attacks that all networks met."""
    return sorted(set.intersection(*(set(subject.outcomes) for subject in subjects)))


def cheapest_order(subjects: Sequence[Network]) -> list[str]:
    """Attacks that all networks met, in the order that lowers their summed robust accuracy fastest per pass.

    Greedy: next comes the attack that breaks most further images per pass that it costs on the images still
    standing; attacks that break nothing more are left out.
    """
    names = in_common(subjects)
    order: list[str] = []
    while True:
        left = [_left(subject, order) for subject in subjects]
        gains = {name: _gain([*order, name], subjects, left) for name in names if name not in order}
        best = max(gains, key=lambda name: gains[name], default=None)
        if best is None or gains[best] <= 0:
            return order
        order.append(best)


def _left(subject: Network, names: Sequence[str]) -> NDArray[np.float64]:
    """The share of draws in which each image stands once these attacks were run, [n]; all of them before any."""
    if not names:
        return np.ones(subject.n)
    return np.asarray(worst_of([subject.outcomes[name] for name in names], subject.iterate).mean(1))


def _gain(order: Sequence[str], subjects: Sequence[Network], left: Sequence[NDArray[np.float64]]) -> float:
    """What the last attack of an order breaks beyond those before it, for each pass."""
    broken, cost = 0.0, 0.0
    for before, subject in zip(left, subjects, strict=True):
        broken += float(before.sum() - _left(subject, order).sum())
        cost += float((before > 0).sum()) * max(subject.passes[order[-1]], 1)
    return broken / cost if cost else 0.0


def steps(subject: Network, order: Sequence[str]) -> list[Step]:
    """What each attack adds to the worst case, in a given order."""
    passes, found = 0, []
    for count, name in enumerate(order, 1):
        passes += subject.passes[name]
        alone, together = (wilson(float(_left(subject, names).sum()), subject.n) for names in ([name], order[:count]))
        found.append(Step(name, alone, together, passes))
    return found
