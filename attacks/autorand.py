"""AutoAttack's ensemble for networks with noise, decided by expectations instead of single draws."""

from torch import Tensor, nn

from attacks.apgd import APGD
from attacks.base import Attack
from attacks.ensemble import Member, worst_of, written
from attacks.threat import Threat
from models.random import CounterRNG

STEPS, DRAWS = 100, 20


def autorand(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    rng: CounterRNG,
    steps: int = STEPS,
    loss: str = "dlr",
) -> Tensor:
    """The worse of APGD on the cross-entropy and APGD on the DLR loss, for each image.

    It is not the official `rand`, which measures luck: each of its stages draws the noise anew and keeps the
    failures. A network that errs at random on 10% of its draws, whatever the input, keeps 0.9^3 there. Here the step
    size, the best point and the choice between the members go by means over draws of the noise; the choice by draws
    that are the same for every candidate; and no draw that chose is used to score.

    Source: version `rand` of AutoAttack (Croce and Hein, arXiv 2003.01690), for its members, steps and draws.
    Cost: 2 * (steps + 1) * eot forwards and backwards, and 30 forwards to choose.

    Args:
        model: maps [N, *] to logits [N, K].
        x: clean inputs [N, *] inside the box.
        y: true labels [N].
        threat: norm, eps and box.
        rng: random starts of each sample.
        steps: gradient steps of each member.
        loss: of the second member; `margin` for networks with 2 classes, where dlr is not defined.

    Returns:
        x_adv [N, *], inside the ball and the box in float64; x itself where no member found anything worse.

    Raises:
        ValueError: steps below 1.
    """
    members = [Member(APGD, steps, {"loss": name}) for name in ("ce", loss)]
    return worst_of(members, model, x, y, threat, rng=rng).last


AUTORAND = Attack(
    autorand,
    "APGD-CE and APGD-DLR over draws of the noise: AutoAttack rand, corrected",
    defaults={"loss": "dlr"},
    cost=lambda steps: (2 * (STEPS + 2) + 1, 2 * (STEPS + 1)),
    eot=DRAWS,
    backend=lambda: written([Member(APGD, STEPS)]),
)
