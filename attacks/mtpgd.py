"""Multi-targeted PGD: towards every other class in turn, and the best of these."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attacks.base import Attack, Candidate, per_sample
from attacks.expectation import expected
from attacks.gradients import estimating, frozen, input_gradient
from attacks.gradients.estimation import active_estimation
from attacks.losses import margin, towards
from attacks.projections import Ball, ball
from attacks.threat import Threat
from models.random import CounterRNG, active_noise_stream, derive_key

_DECAY = 0.9
_MOST_TARGETS = 9
_COMPARISONS = 1 << 15


def mtpgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int,
    alpha: float,
    rng: CounterRNG,
    targets: int = 0,
    snapshots: Sequence[int] = (),
) -> dict[int, Candidate]:
    """For each target class t: m <- 0.9 m + g / mean|g|, x <- project(x + alpha * steepest(m)), g of z_t - z_y.

    Where the runner-up's gradient leads nowhere, another class's may. The largest untargeted margin decides
    between the targets. Every target's run meets the same draws of a noisy model, and last iterates are compared
    on further draws, again the same ones, so that no target wins by luckier noise.

    Source: Gowal et al., arXiv 1910.09338 (multi-targeted attack), with the momentum of Dong et al.,
    arXiv 1710.06081. The momentum's direction is scale-free, so the gradient's l1 norm and its mean are one.
    Cost: for each target `steps` forwards and backwards, and one forward for each kept step count; one forward
    for the clean logits. With 9 targets: 9 (steps + 1) + 1 forwards and 9 steps backwards.

    Args:
        model: maps [N, *] to logits [N, K].
        x: clean inputs [N, *] inside the box.
        y: true labels [N].
        threat: norm, eps and box.
        steps: number of gradient steps towards each target, at least 1.
        alpha: step size in pixel units.
        rng: a random start of each sample for each target.
        targets: how many targets, those of largest clean logit first; 0 is all other classes, at most 9.
        snapshots: further step counts below `steps` at which to keep candidates.

    Returns:
        candidates by step count, for `steps` and each snapshot. `last` is the last iterate of the target
        where its margin is largest, `best` the visited point of largest margin over all targets. Inside the
        ball and the box in float64.

    Raises:
        ValueError: steps below 1, a negative alpha or number of targets, or a snapshot outside [1, steps].
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not alpha >= 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    if targets < 0:
        raise ValueError(f"targets must not be negative, got {targets}; 0 chooses their number")
    wanted = {steps, *snapshots}
    if min(wanted) < 1 or max(wanted) > steps:
        raise ValueError(f"snapshots must lie in [1, {steps}], got {sorted(snapshots)}")
    region, stream = ball(x, threat), active_noise_stream()
    kept: dict[int, _Found] = {}
    with frozen(model):
        ranked = _others_by_logit(expected(model, x, lambda logits: logits), y)
        first_draw = stream.next_draw if stream is not None else 0
        for number in range(min(targets or _MOST_TARGETS, ranked.shape[1])):
            if stream is not None:
                stream.seek(first_draw)
            start = region.random_point(CounterRNG(derive_key(rng.key, "target", number), rng.samples))
            run = _towards_one(model, start, y, ranked[:, number], region, alpha, wanted, first_draw + _COMPARISONS)
            # A gradient with memory begins anew, or fewer steps would not be a prefix of more.
            with estimating(model, active_estimation().gradient):
                for step, found in run:
                    kept[step] = found if number == 0 else _Found(*map(_larger, kept[step], found))
    return {step: Candidate(found.last.x, found.best.x) for step, found in kept.items()}


class _Scored(NamedTuple):
    x: Tensor
    margin: Tensor


class _Found(NamedTuple):
    last: _Scored
    best: _Scored


def _larger(kept: _Scored, new: _Scored) -> _Scored:
    """Per image the point of larger margin; ties keep `kept`."""
    better = new.margin > kept.margin
    return _Scored(torch.where(per_sample(better, new.x), new.x, kept.x), torch.where(better, new.margin, kept.margin))


def _towards_one(
    model: nn.Module,
    x_adv: Tensor,
    y: Tensor,
    target: Tensor,
    region: Ball,
    alpha: float,
    wanted: set[int],
    comparison: int,
) -> Iterator[tuple[int, _Found]]:
    """The run from `x_adv` towards one target class of each image, at the step counts wanted."""
    pairs = torch.stack([y, target], 1)
    momentum = torch.zeros_like(x_adv)
    best = _Scored(x_adv, x_adv.new_full((len(x_adv),), -torch.inf))
    for step in range(1, max(wanted) + 1):
        at = input_gradient(model, x_adv, pairs, towards)
        best = _larger(best, _Scored(x_adv, margin(at.logits, y)))
        mean = per_sample(at.grad.abs().flatten(1).mean(1), x_adv)
        momentum = _DECAY * momentum + torch.where(mean > 0, at.grad / mean, 0)
        x_adv = region.project(x_adv + alpha * region.steepest(momentum))
        if step in wanted:
            last = _Scored(x_adv, _margin_at_draw(model, x_adv, y, comparison))
            yield step, _Found(last, _larger(best, last))


def _margin_at_draw(model: nn.Module, x: Tensor, y: Tensor, draw: int) -> Tensor:
    """The margin [N] in a fixed draw of the model's noise; the stream goes on afterwards as if nothing had been."""
    stream = active_noise_stream()
    if stream is None:
        return margin(expected(model, x, lambda logits: logits), y)
    following = stream.next_draw
    stream.seek(draw)
    logits = expected(model, x, lambda logits: logits)
    stream.seek(following)
    return margin(logits, y)


def _others_by_logit(logits: Tensor, y: Tensor) -> Tensor:
    """The classes other than y by falling logit, [N, K - 1]; equal logits in the order of the classes."""
    order = logits.scatter(1, y[:, None], -torch.inf).sort(dim=1, descending=True, stable=True).indices
    return order[:, :-1]


MTPGD = Attack(
    mtpgd,
    "projected gradient ascent towards every other class, 9 at most",
    takes_steps=True,
    shares_trajectory=True,
    defaults={"alpha": None, "targets": 0},
    cost=lambda steps: (_MOST_TARGETS * (steps + 1) + 1, _MOST_TARGETS * steps),
)
