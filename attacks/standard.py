"""The standard ensemble for spiking networks: few attacks, chosen by measurement, that together miss little."""

from torch import Tensor, nn

from attacks.apgd import APGD
from attacks.base import Attack
from attacks.ensemble import Member, worst_of
from attacks.gradients import parse_gradient
from attacks.sapgd import SAPGD
from attacks.threat import Threat
from models.random import CounterRNG

MEMBERS = (
    Member(APGD, 20, {"loss": "margin"}),
    Member(SAPGD, 50, gradient=parse_gradient("assg")),
    Member(APGD, 50, {"loss": "ce"}, parse_gradient("rga")),
)


def snn_standard(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, rng: CounterRNG) -> Tensor:
    """Per image the worst case over `MEMBERS`, each spent only on the images still standing.

    Returns:
        x_adv [N, *], inside the ball and the box in float64.
    """
    return worst_of(MEMBERS, model, x, y, threat, rng=rng).last


def _cost(_: int) -> tuple[int, int]:
    costs = [member.attack.cost(member.steps) for member in MEMBERS]
    return 1 + sum(f + 1 for f, _ in costs), sum(b for _, b in costs)


SNN_STANDARD = Attack(
    snn_standard,
    "per image the worst of a small ensemble chosen for spiking networks",
    norms=("linf",),
    cost=_cost,
    eot=10,
)
