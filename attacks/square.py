"""Square attack: random search by squares, on scores alone."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from attacks.base import Attack, Candidate, per_sample
from attacks.expectation import expected
from attacks.gradients import frozen
from attacks.losses import margin
from attacks.projections import ball
from attacks.threat import Threat
from models.neurons import is_stochastic
from models.random import CounterRNG

_FIRST_SHARE = 0.8
_SCHEDULE_QUERIES = 10_000
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_STRIPES, _SQUARES = 3, 4


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int,
    rng: CounterRNG,
) -> dict[int, Candidate]:
    """Vertical stripes at the corners of the ball, then squares of a random corner where they raise the margin.

    Needs no gradient, so it tells whether gradients mislead. Images of a deterministic model that are
    misclassified are not queried again. On a stochastic one a query's margin is the mean over as many draws as
    gradients are averaged over, each query meets fresh noise as a remote attacker's would, and no image is left
    early: one wrong answer may be luck.

    A square on frames [N, T, C, H, W] lies at the same place in all of them, with a corner of its own for each step
    and channel.

    Source: Andriushchenko et al., arXiv 1912.00049, linf, with the schedule of the squares' size stretched to
    the number of queries as in AutoAttack. Where they differ: each image has squares of its own, so its batch
    does not matter; the stripes count as a query; and squares may lie at the last row and column, which the
    official code never reaches.
    Cost: at most `steps` forwards, no backwards.

    Args:
        model: maps [N, C, H, W] or [N, T, C, H, W] to logits [N, K].
        x: clean inputs [N, C, H, W] or [N, T, C, H, W] inside the box.
        y: true labels [N].
        threat: eps and box; linf only.
        steps: queries, at least 1. The schedule depends on it.
        rng: stripes and squares of each sample.

    Returns:
        the one candidate, for `steps`: the point of the largest margin met, in the ball and the box in float64.

    Raises:
        ValueError: a norm other than linf, steps below 1, or inputs that are neither images nor frames.
    """
    if threat.norm != "linf":
        raise ValueError("square is defined for the linf norm only")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if x.dim() not in (4, 5):
        raise ValueError(f"square draws its squares on images [N, C, H, W] or frames, got {list(x.shape)}")
    region, reach = ball(x, threat), float(threat.eps)
    # The frames of a recording lie over each other, as an image's channels do.
    inner = x.shape[1:-2]
    low, high = (region.project(x + sign * reach).flatten(1, -3) for sign in (-1, 1))

    def seen(layers: Tensor, labels: Tensor) -> Tensor:
        return expected(model, layers.unflatten(1, inner), partial(margin, y=labels))

    best = torch.where(rng.uniform((low.shape[1], 1, low.shape[3]), stream=_STRIPES) > 0.5, high, low)
    left, patient = torch.arange(len(x), device=x.device), is_stochastic(model)
    with frozen(model):
        highest = seen(best, y)
        for query in range(1, steps):
            if not patient:
                left = left[highest[left] < 0]
                if not len(left):
                    break
            side = side_of_squares(query - 1, steps, best.shape[2], best.shape[3])
            inside, up = _random_squares(rng.rows(left), query, side, best)
            tried = torch.where(inside, torch.where(up, high[left], low[left]), best[left])
            loss = seen(tried, y[left])
            better = loss > highest[left]
            best[left] = torch.where(per_sample(better, tried), tried, best[left])
            highest[left] = torch.where(better, loss, highest[left])
    found = best.unflatten(1, inner)
    return {steps: Candidate(found, found)}


def side_of_squares(square: int, queries: int, height: int, width: int) -> int:
    """Side of square number `square` (from 0): its area is 0.8 of the image, halved nine times on the way."""
    at = int(square / queries * _SCHEDULE_QUERIES)
    share = _FIRST_SHARE / 2 ** sum(at > limit for limit in _HALVED_AFTER)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def _random_squares(rng: CounterRNG, draw: int, side: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's square, bool [N, 1, H, W], and its corner of the ball, bool [N, C, 1, 1]."""
    channels, height, width = x.shape[1:]
    u = rng.uniform((2 + channels,), stream=_SQUARES, draw=draw)
    edges = []
    for number, size in enumerate((height, width)):
        # u may be 1 exactly.
        first = (u[:, number] * (size - side + 1)).long().clamp(max=size - side)
        pixel = torch.arange(size, device=x.device) - first[:, None]
        edges.append((pixel >= 0) & (pixel < side))
    return edges[0][:, None, :, None] & edges[1][:, None, None, :], u[:, 2:, None, None] > 0.5


SQUARE = Attack(
    square,
    "random search by squares, without gradients",
    takes_steps=True,
    norms=("linf",),
    cost=lambda steps: (steps, 0),
)
