"""PGD through a sweep of surrogate shapes and sharpnesses, the worst case per image."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from attacks.base import Attack, Candidate
from attacks.ensemble import Member, kept, needing_whole_trains, worst_of, written
from attacks.gradients import parse_gradient
from attacks.pgd import PGD
from attacks.threat import Threat
from models.random import CounterRNG

SURROGATES = (
    None,
    "triangular:gamma=0.5",
    "triangular:gamma=2",
    "rectangular:gamma=1",
    "rectangular:gamma=2",
    "arctan:alpha=2",
    "arctan:alpha=8",
    "sigmoid:alpha=4",
    "gaussian:alpha=1",
    "bptr",
    "rga",
)
"""None is the network's own."""


def sweep(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int,
    alpha: float,
    rng: CounterRNG,
    without: str = "",
) -> dict[int, Candidate]:
    """PGD once through each of `SURROGATES`, each on the images that the ones before left standing.

    A defense may narrow the band in which its own surrogate has a gradient; that is no robustness where
    another surrogate gets through.

    Source: the surrogate ensembles of Oezdenizci and Legenstein (TMLR 2024) and of Liu et al. (ICML 2024).
    Cost: one forward, and up to 11 times (steps + 2 forwards, steps backwards); less for every image that breaks.

    Args:
        steps, alpha: of each PGD run.
        without: surrogates to leave out, joined by `+`.
        others: as `attacks.pgd.pgd`.
    """
    params = {"alpha": alpha}
    return {steps: worst_of(kept(_members(steps, params), without), model, x, y, threat, rng=rng)}


def _members(steps: int, params: Mapping[str, Any]) -> list[Member]:
    return [Member(PGD, steps, params, parse_gradient(name) if name else None) for name in SURROGATES]


def _check(params: Mapping[str, Any], _: object) -> None:
    kept(_members(0, {}), params["without"])


SWEEP = Attack(
    sweep,
    "worst case of PGD over 11 surrogate shapes and sharpnesses",
    takes_steps=True,
    defaults={"alpha": None, "without": ""},
    added=("without",),
    stepwise=needing_whole_trains(_members(0, {})),
    own_gradients=True,
    backend=lambda: written(_members(0, {})),
    check=_check,
    cost=lambda steps: (1 + 11 * (steps + 2), 11 * steps),
)
