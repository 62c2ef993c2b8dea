"""Projected gradient ascent, with every intermediate step count read off one run."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.base import Attack, Candidate, per_sample
from attacks.gradients import frozen, input_gradient
from attacks.losses import LOSSES, margin
from attacks.projections import ball
from attacks.threat import Threat
from models.random import CounterRNG


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int,
    alpha: float,
    rng: CounterRNG,
    random_start: bool = True,
    loss: str = "ce",
    snapshots: Sequence[int] = (),
) -> dict[int, Candidate]:
    """x <- project(x + alpha * steepest(grad)), `steps` times, from a random point of the ball.

    Source: Madry et al., arXiv 1706.06083. Without `random_start` it is BIM.
    Cost: steps forwards and backwards.

    Args:
        model: maps [N, *] to logits [N, K].
        x: clean inputs [N, *] inside the box.
        y: true labels [N].
        threat: norm, eps and box.
        steps: number of gradient steps, at least 1.
        alpha: step size in pixel units. The SNN papers use 0.01 with eps = 8/255 at every step count.
        rng: random start of each sample.
        random_start: begin at a random point of the ball instead of at x.
        loss: `ce`, `margin` or `dlr`.
        snapshots: further step counts below `steps` at which to keep candidates.

    Returns:
        candidates by step count, for `steps` and each snapshot. Every candidate lies
        inside the ball and the box in float64.

    Raises:
        ValueError: steps below 1, a negative alpha, or a snapshot outside [1, steps].
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not alpha >= 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    wanted = {steps, *snapshots}
    if min(wanted) < 1 or max(wanted) > steps:
        raise ValueError(f"snapshots must lie in [1, {steps}], got {sorted(snapshots)}")
    region = ball(x, threat)
    x_adv = region.random_point(rng) if random_start else region.project(x)
    best, best_margin = x_adv, x.new_full((len(x),), -torch.inf)
    path: dict[int, Candidate] = {}
    with frozen(model):
        for step in range(1, steps + 1):
            at = input_gradient(model, x_adv, y, LOSSES[loss])
            visited = margin(at.logits, y)
            better = visited > best_margin
            best = torch.where(per_sample(better, x), x_adv, best)
            best_margin = torch.where(better, visited, best_margin)
            x_adv = region.project(x_adv + alpha * region.steepest(at.grad))
            if step in wanted:
                path[step] = Candidate(x_adv, best)
    return path


PGD = Attack(
    pgd,
    "projected gradient ascent from a random start",
    takes_steps=True,
    shares_trajectory=True,
    defaults={"alpha": None, "random_start": True, "loss": "ce"},
    cost=lambda steps: (steps, steps),
)
