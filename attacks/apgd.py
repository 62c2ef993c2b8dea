"""APGD: gradient ascent that finds its own step size, image by image."""

import torch
from torch import Tensor, nn

from attacks.base import Attack, Candidate, per_sample
from attacks.gradients import frozen, input_gradient
from attacks.losses import LOSSES
from attacks.projections import ball
from attacks.threat import Threat
from attacks.visited import stronger, visited
from models.random import CounterRNG

_AHEAD = 0.75
_RISING = 0.75


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int,
    rng: CounterRNG,
    loss: str = "ce",
) -> dict[int, Candidate]:
    """Ascent with momentum from step size 2 eps, halved for each image whose loss no longer rises.

    At each of `checkpoints`, an image whose loss rose in at most 3/4 of the steps since the last one, or whose
    best loss has not improved since then with the step size kept, halves its step and goes back to its best point.

    Source: Croce and Hein, arXiv 2003.01690, Algorithm 1, with the whole-numbered schedule and the rules of the
    official code, whose first comparison in the first interval is with a loss of 0. Where they differ: the
    projection onto the l2 ball at the box's walls is exact; with several draws of a noisy model the loss, the
    step size and the best point go by the mean over the draws (the official code looks at the last draw alone);
    and the official code hands in the last misclassified point.
    Cost: steps + 1 forwards and backwards.

    Args:
        model: maps [N, *] to logits [N, K].
        x: clean inputs [N, *] inside the box.
        y: true labels [N].
        threat: norm, eps and box.
        steps: number of gradient steps, at least 1. The schedule depends on it.
        rng: random start of each sample.
        loss: `ce`, `margin` or `dlr`.

    Returns:
        the one candidate, for `steps`: of the points visited, the start and the last included, the
        misclassified one of largest loss, or where there is none that of largest loss. Inside the ball
        and the box in float64.

    Raises:
        ValueError: steps below 1.
    """
    region = ball(x, threat)
    checks = checkpoints(steps)
    step_size = x.new_full((len(x),), 2 * float(threat.eps))
    x_adv = before = random_edge_point(x, threat, rng)
    with frozen(model):
        at = input_gradient(model, x_adv, y, LOSSES[loss])
        found = visited(x_adv, at, y)
        best, best_grad, best_loss = x_adv, at.grad, at.loss
        grad, checked_loss, previous_loss = at.grad, at.loss, torch.zeros_like(at.loss)
        halved = torch.ones_like(found.wrong)
        rises, checked_step = torch.zeros_like(y), 0
        for step in range(1, steps + 1):
            ahead = region.project(x_adv + per_sample(step_size, x) * region.steepest(grad))
            share = _AHEAD if step > 1 else 1.0
            here = x_adv
            x_adv = region.project(x_adv + share * (ahead - x_adv) + (1 - share) * (x_adv - before))
            before = here
            at = input_gradient(model, x_adv, y, LOSSES[loss])
            found = stronger(found, visited(x_adv, at, y))
            grad = at.grad
            rises += at.loss > previous_loss
            previous_loss = at.loss
            better = at.loss > best_loss
            best = torch.where(per_sample(better, x), x_adv, best)
            best_grad = torch.where(per_sample(better, x), grad, best_grad)
            best_loss = torch.where(better, at.loss, best_loss)
            if step in checks:
                wavering = rises <= _RISING * (step - checked_step)
                halved = wavering | (~halved & ~(best_loss > checked_loss))
                step_size = torch.where(halved, step_size / 2, step_size)
                x_adv = torch.where(per_sample(halved, x), best, x_adv)
                grad = torch.where(per_sample(halved, x), best_grad, grad)
                checked_loss, checked_step = best_loss, step
                rises.zero_()
    return {steps: Candidate(found.x, found.x)}


def checkpoints(steps: int) -> list[int]:
    """After which steps the step size is looked at: intervals of 22% of all steps, each 3% shorter down to 6%.

    Raises:
        ValueError: steps below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    interval, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    checks = [interval]
    while checks[-1] < steps:
        interval = max(interval - shrink, least)
        checks.append(checks[-1] + interval)
    return [check for check in checks if check <= steps]


def random_edge_point(x: Tensor, threat: Threat, rng: CounterRNG) -> Tensor:
    """A random point [N, *] at distance eps from the images x, in their norm, then clipped to the box."""
    if threat.norm == "linf":
        direction = 2 * rng.uniform(x.shape[1:]).to(x.dtype) - 1
        length = direction.flatten(1).abs().amax(1)
    else:
        direction = rng.normal(1, x.shape[1:], stream=1)[0].to(x.dtype)
        length = direction.flatten(1).norm(dim=1)
    length = per_sample(length.clamp(min=torch.finfo(x.dtype).tiny), x)
    return ball(x, threat).project(x + float(threat.eps) * (direction / length))


APGD = Attack(
    apgd,
    "gradient ascent with a step size of each image's own",
    takes_steps=True,
    defaults={"loss": "ce"},
    cost=lambda steps: (steps + 1, steps + 1),
)
