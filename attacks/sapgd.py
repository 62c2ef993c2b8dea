"""SA-PGD: ascent with a step of each pixel's own, made for gradients that differ widely in size."""

import torch
from torch import Tensor, nn

from attacks.apgd import checkpoints, random_edge_point
from attacks.base import Attack, Candidate, per_sample
from attacks.gradients import frozen, input_gradient
from attacks.losses import LOSSES
from attacks.projections import ball
from attacks.threat import Threat
from attacks.visited import stronger, visited
from models.random import CounterRNG

_FIRST_MOMENT, _SECOND_MOMENT = 0.5, 0.8
_FLOOR = 1e-12


def sapgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int,
    rng: CounterRNG,
    loss: str = "ce",
) -> dict[int, Candidate]:
    """Each pixel moves by eta m / sqrt(v), at most eta, with m and v sums of normalised gradients and their squares.

    With u = g / mean|g|: m <- 0.5 m + u and v <- 0.8 v + u^2 / mean(u^2), means over each image. eta begins at
    eps and is halved at every one of APGD's `checkpoints`.

    Source: Towards Reliable Evaluation of Adversarial Robustness for SNNs, arXiv 2512.22522 (CVPR 2026), and
    its official code. Where they differ: a zero gradient does not move the image (there it makes NaN pixels);
    means are over all of an image's axes; each image has its own random start; and the product is a point of
    largest loss, not the last misclassified one.
    Cost: steps + 1 forwards and backwards.

    Args:
        model: maps [N, *] to logits [N, K].
        x: clean inputs [N, *] inside the box.
        y: true labels [N].
        threat: eps and box; linf only.
        steps: number of gradient steps, at least 1. The schedule depends on it.
        rng: random start of each sample.
        loss: `ce`, `margin` or `dlr`.

    Returns:
        the one candidate, for `steps`, chosen from the points visited as APGD's is.

    Raises:
        ValueError: a norm other than linf, or steps below 1.
    """
    if threat.norm != "linf":
        raise ValueError("sapgd is defined for the linf norm only")
    region = ball(x, threat)
    checks = checkpoints(steps)
    step_size = float(threat.eps)
    x_adv = random_edge_point(x, threat, rng)
    first = second = torch.zeros_like(x)
    with frozen(model):
        at = input_gradient(model, x_adv, y, LOSSES[loss])
        found = visited(x_adv, at, y)
        for step in range(1, steps + 1):
            unit = _over_mean(at.grad, at.grad.abs())
            first = _FIRST_MOMENT * first + unit
            # Squares of the normalised gradient: those of a tiny gradient itself would underflow.
            second = _SECOND_MOMENT * second + _over_mean(unit.square(), unit.square())
            move = (first / (second.sqrt() + _FLOOR)).clamp(-1, 1)
            x_adv = region.project(x_adv + step_size * move)
            at = input_gradient(model, x_adv, y, LOSSES[loss])
            found = stronger(found, visited(x_adv, at, y))
            if step in checks:
                step_size /= 2
    return {steps: Candidate(found.x, found.x)}


def _over_mean(values: Tensor, sizes: Tensor) -> Tensor:
    """values / mean(sizes), means over each image; 0 where that mean is 0."""
    mean = per_sample(sizes.flatten(1).mean(1), values)
    return torch.where(mean > 0, values / mean, 0)


SAPGD = Attack(
    sapgd,
    "gradient ascent with a step size of each pixel's own",
    takes_steps=True,
    defaults={"loss": "ce"},
    norms=("linf",),
    cost=lambda steps: (steps + 1, steps + 1),
)
