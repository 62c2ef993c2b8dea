"""SparseFool on counts of events, rounded to whole events."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.base import Attack, per_sample
from attacks.events.base import EventCandidate
from attacks.events.draft import ADDED, Draft
from attacks.events.gains import Floats
from attacks.events.lens import Lens
from attacks.events.ranking import KINDS, Ranking
from attacks.events.sight import Sight
from attacks.events.sketch import Sketch
from attacks.events.threat import EventThreat
from attacks.gradients import frozen, input_gradient
from attacks.losses import margin
from attacks.walk import LEAST_ROWS
from events import Recording
from models.random import CounterRNG

_INNER = 10
_OVERSHOOT = 0.02


def spikefool(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    steps: int,
    rng: CounterRNG,
    lam: float = 2.0,
) -> EventCandidate:
    """Walk to the decision boundary in real numbers, take it for a plane there, and cross it with the fewest events.

    Each round begins at the present recording's frames x. Up to 10 steps of DeepFool, not below 0 counts, lead to x_B,
    where the margin's slope w is taken. The plane lies at x + lam (x_B - x). The edits of the largest first-order gain
    by w are made until these gains add up to the distance, or the budget is spent; a further trial spends what is
    left of the budget. The new recording is framed anew, and the trial of the larger margin starts the next round. Its
    edits stay made.

    Source: Buechel et al., arXiv 2110.02929 (Front. Neurosci. 2022), SpikeFool, which is SparseFool (Modas et al.,
    CVPR 2019) rounded to spikes. There inputs are binary and 4 rounds are taken at most; here counts may have any
    size, so a place can get several events, and `steps` is the number of rounds. Where they differ further: the
    boundary is that to the strongest other class, by the margin, instead of the nearest of several classes by K
    gradients; edits are ordered by gains that count the borders of frames they move; and there is a budget from the
    start instead of a projection in the end.
    Cost: at most 11 forward and backward passes and 2 forwards a round.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: which edits are allowed, and how many.
        lens: how the network sees recordings.
        steps: rounds, at least 1.
        rng: not used: the search is deterministic but for the network's own noise.
        lam: how far behind the boundary the plane is put, at least 1.

    Raises:
        ValueError: steps or lam below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    _check({"lam": lam}, threat)
    sight, span = Sight.of(model, y, lens), _INNER + 3
    drafts = [Draft.of(recording) for recording in recordings]
    best, highest = list(drafts), np.full(len(drafts), -np.inf)
    with frozen(model):
        if drafts:
            highest = sight.margins(range(len(drafts)), recordings, 0)
        for step in range(steps):
            left = [row for row, draft in enumerate(drafts) if not Sketch(draft, threat).is_spent]
            left = [row for row in left if sight.patient or highest[row] <= 0]
            if not left:
                break
            slopes, distances = _boundary(sight, left, [drafts[row] for row in left], lam, 1 + span * step)
            trials = []
            for row, slope, distance in zip(left, slopes, distances, strict=True):
                trials.append([best[row], *_crossings(drafts[row], lens, slope, threat, distance)])
            owners = [row for row, some in zip(left, trials, strict=True) for _ in some]
            shown = [draft.recording for some in trials for draft in some]
            values = iter(sight.margins(owners, shown, span * (step + 1)).tolist())
            for row, some in zip(left, trials, strict=True):
                margins = list(islice(values, len(some)))
                highest[row] = margins[0]
                place = 1 + int(np.argmax(margins[1:])) if len(margins) > 1 else 0
                # Of the two ways on, the sparser one leaves a budget for further rounds.
                drafts[row] = some[min(1, place)] if margins[place] <= 0 else some[place]
                if margins[place] > margins[0]:
                    best[row], highest[row] = some[place], margins[place]
    return EventCandidate(tuple(draft.recording for draft in best))


def _check(params: Mapping[str, Any], _: EventThreat) -> None:
    if params["lam"] < 1:
        raise ValueError(f"lam must be at least 1, got {params['lam']}")


def _boundary(sight: Sight, rows: list[int], drafts: list[Draft], lam: float, moment: int) -> tuple[Floats, Floats]:
    """The margin's slope in each count near the boundary, [M, T, 2, H, W], and by how much it has to grow, [M].

    The walk of one sample does not depend on the others: each stops where its own margin is positive.
    """
    wanted, missing = len(rows), max(LEAST_ROWS - len(rows), 0)
    # As everywhere, kernels must not sum a few rows in another way than many.
    rows, drafts = rows + rows[-1:] * missing, drafts + drafts[-1:] * missing
    labels = sight.y[torch.tensor(rows, device=sight.y.device)]
    start = sight.lens.frames([draft.recording for draft in drafts])
    x, slope = start.clone(), torch.zeros_like(start)
    walking = torch.ones(len(rows), dtype=torch.bool, device=x.device)
    for inner in range(_INNER + 1):
        with sight.at(rows, moment + inner):
            found = input_gradient(sight.model, x, labels, margin)
        slope[walking] = found.grad[walking]
        walking &= (found.loss <= 0) & (found.grad.flatten(1).abs().amax(1) > 0)
        if inner == _INNER or not walking.any():
            break
        size = found.grad.flatten(1).square().sum(1).clamp(min=torch.finfo(x.dtype).tiny)
        move = per_sample((found.loss.abs() + 1e-4) / size, x) * found.grad * (1 + _OVERSHOOT)
        x = torch.where(per_sample(walking, x), (x + move.to(x)).clamp(min=0), x)
    far = lam * (slope * (x - start)).flatten(1).sum(1)
    scale = sight.lens.scale
    return (slope[:wanted] / scale).double().cpu().numpy(), far[:wanted].double().cpu().numpy()


def _crossings(draft: Draft, lens: Lens, slope: Floats, threat: EventThreat, distance: float) -> list[Draft]:
    """The draft with the fewest edits whose gains add up to the distance, and with all that raise the margin."""
    most = threat.edits(len(draft.original))
    ranking = Ranking(draft, lens.framing, slope, threat, most, KINDS)
    sketch, crossed = Sketch(draft, threat), 0.0
    drafts: list[Draft] = []
    for wish, gain in zip(ranking, ranking.gains, strict=True):
        if gain <= 0 or sketch.is_spent:
            break
        while sketch.take(wish):
            crossed += float(gain)
            if crossed >= distance and not drafts:
                drafts.append(sketch.draft())
            if wish.kind != ADDED:
                break
    return [*drafts, sketch.draft()] if len(sketch) else []


SPIKEFOOL = Attack(
    spikefool,
    "SparseFool on counts, rounded to whole events",
    takes_steps=True,
    defaults={"lam": 2.0},
    domain="events",
    kinds=KINDS,
    check=_check,
    cost=lambda steps: (13 * steps, 11 * steps),
)
