"""Projected gradient ascent, with every intermediate step count read off one run."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.base import Attack, Candidate
from attacks.gradients import frozen, input_gradient
from attacks.losses import LOSSES, margin
from attacks.projections import ball
from attacks.threat import Threat
from attacks.walk import Walk, is_memoryless, part_of_batch, rows_of
from models.neurons import is_stochastic
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
    early_stop: bool = False,
    snapshots: Sequence[int] = (),
) -> dict[int, Candidate]:
    """x <- project(x + alpha * steepest(grad)), `steps` times, from a random point of the ball.

    Source: Madry et al., arXiv 1706.06083. Without `random_start` it is BIM.
    Cost: at most steps forwards and backwards. Without noise a path that returns to one of its points is followed
    for one round only, on the CPU, where that changes no bit.

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
        early_stop: leave an image alone at the first iterate that is misclassified, which is then its candidate: the
            `any iterate` reading alone, for less. Networks without noise only.
        snapshots: further step counts below `steps` at which to keep candidates.

    Returns:
        candidates by step count, for `steps` and each snapshot. Every candidate lies
        inside the ball and the box in float64.

    Raises:
        ValueError: steps below 1, a negative alpha, a snapshot outside [1, steps], or early_stop with a noisy network.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not alpha >= 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    wanted = {steps, *snapshots}
    if min(wanted) < 1 or max(wanted) > steps:
        raise ValueError(f"snapshots must lie in [1, {steps}], got {sorted(snapshots)}")
    if early_stop and is_stochastic(model):
        raise ValueError("early_stop needs a network without noise: what breaks an image in one draw is luck")
    region = ball(x, threat)
    start = region.random_point(rng) if random_start else region.project(x)
    walk = Walk(start, wanted, watch=is_memoryless(model, x))
    rows, labels = walk.left, y
    best = start.clone(memory_format=torch.preserve_format)
    best_margin = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
    strongest: dict[int, Tensor] = {}
    with frozen(model):
        for step in range(1, steps + 1):
            if not torch.equal(rows, walk.batch):
                rows = walk.batch
                labels, region = y[rows], ball(rows_of(x, rows), threat)
            here = rows_of(walk.x, rows)
            with part_of_batch(rows, len(x)):
                at = input_gradient(model, here, labels, LOSSES[loss])
            visited = margin(at.logits, labels)
            better = visited > best_margin[rows]
            best[rows[better]], best_margin[rows[better]] = here[better], visited[better]
            moved = walk.of_left(region.project(here + alpha * region.steepest(at.grad)), rows)
            if early_stop:
                # A tie is not a correct prediction.
                broken = walk.of_left(visited, rows) >= 0
                walk.settle(walk.left[broken], step)
                moved = moved[~broken]
            walk.move(moved, step)
            if step in wanted:
                strongest[step] = best.clone(memory_format=torch.preserve_format)
            if not len(walk.left):
                break
    if early_stop:
        return {step: Candidate(last, last) for step, last in walk.kept.items()}
    return {step: Candidate(last, strongest.get(step, best)) for step, last in walk.kept.items()}


PGD = Attack(
    pgd,
    "projected gradient ascent from a random start",
    takes_steps=True,
    shares_trajectory=True,
    defaults={"alpha": None, "random_start": True, "loss": "ce", "early_stop": False},
    added=("early_stop",),
    cost=lambda steps: (steps, steps),
)
