"""Sparse: a modifier of the frames, found by gradients, that becomes whole events."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.base import Attack, per_sample
from attacks.events.base import EventCandidate
from attacks.events.draft import ADDED, REMOVED
from attacks.events.edits import Edits
from attacks.events.ledger import Event, Ledger
from attacks.events.lens import Lens
from attacks.events.sight import Sight
from attacks.events.threat import EventThreat
from attacks.gradients import frozen, input_gradient
from attacks.grid import counts_of, of_counts
from attacks.walk import at_least
from events import Recording
from models.random import CounterRNG

_DECAYS = (0.9, 0.999)
_TINY = 1e-8


def sparse(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    steps: int,
    rng: CounterRNG,
    lr: float = 0.25,
    lam: float = 0.1,
) -> EventCandidate:
    """Adam on a modifier of all frames, whose most promising entries become events that are added or removed.

    It minimises -log(1 - p_y) + w * sum_t ||delta_t||_2 over a modifier delta of the counts, where p_y is the true
    class's probability; the second term, an l2,1 norm, empties whole frames. After each step the entries are rounded to
    whole events, as far as the budgets go, those first whose size times Adam's mean gradient promises most; the events
    are added within the frame that the modifier means, or removed from it, and the result is framed anew. A recording
    is left alone once its true class no longer wins there. On a network with noise, where one error may be luck, none
    is; margins are always taken under the same noise, and each gradient under noise of its own.

    Source: Marchisio et al., DVS-Attacks, IJCNN 2021 (arXiv 2107.00415). Their notebook means to mask the frames
    that may be changed but never sets the mask beyond the first, so that only frame 0 is perturbed; here all frames
    are. Theirs has no budget, and its candidate is the modified frames, of fractional counts, which no camera makes.
    Cost: at most steps backwards and 2 steps + 1 forwards.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: budgets and rules; no event is moved.
        lens: how the network sees recordings.
        steps: of Adam, at least 1.
        rng: not used; the attack has nothing random.
        lr: Adam's step, in counts, more than 0.
        lam: weight of the l2,1 norm, in units of the frame with the largest gradient at the start, [0, 1): a fixed
            weight would stop the attack where gradients are small. At 1 no frame would be worth a change.

    Returns:
        one recording each, within the budget: the first that the network errs on, or else the one of largest margin.
        `frames` has the same whole events, each in the frame that it was meant for: what the attack believed.

    Raises:
        ValueError: a parameter out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    _check({"lr": lr, "lam": lam}, threat)
    best, believed = list(recordings), lens.frames(recordings)
    counts = counts_of(believed, lens.scale).to(believed.dtype)
    delta, mean, square = (torch.zeros_like(counts) for _ in range(3))
    weight = counts.new_zeros(len(counts))
    sight = Sight.of(model, y, lens)
    with frozen(model):
        margins = sight.margins(range(len(best)), best, 0)
        for step in range(1, steps + 1):
            # A tie is not a correct prediction.
            left = np.flatnonzero(sight.patient | ~(margins >= 0)).tolist()
            if not left:
                break
            rows = at_least(torch.tensor(left, device=y.device), len(best))
            with sight.at(rows.tolist(), step):
                at = input_gradient(model, (counts[rows] + delta[rows]) / lens.scale, y[rows], surprise)
            grad = at.grad / lens.scale
            if step == 1:
                weight[rows] = lam * grad.flatten(2).norm(dim=2).amax(1)
            grad = grad + per_sample(weight[rows], grad) * _direction(delta[rows])
            mean[rows] = _DECAYS[0] * mean[rows] + (1 - _DECAYS[0]) * grad
            square[rows] = _DECAYS[1] * square[rows] + (1 - _DECAYS[1]) * grad**2
            root = (square[rows] / (1 - _DECAYS[1] ** step)).sqrt()
            moved = delta[rows] - lr * mean[rows] / (1 - _DECAYS[0] ** step) / (root + _TINY)
            delta[rows] = torch.maximum(moved, -counts[rows])
            asked, slopes = delta.cpu().numpy(), mean.abs().cpu().numpy()
            made = [whole_edits(recordings[row], asked[row], slopes[row], threat, lens) for row in left]
            tries = [edits.apply(recordings[row]) for row, (edits, _) in zip(left, made, strict=True)]
            for (_, change), row, edited, found in zip(made, left, tries, sight.margins(left, tries, 0), strict=True):
                if found > margins[row]:
                    best[row], margins[row] = edited, found
                    whole = counts[row] + torch.from_numpy(change).to(counts)
                    believed[row] = of_counts(whole, lens.scale, believed.dtype)
    return EventCandidate(tuple(best), believed)


def _check(params: Mapping[str, Any], _: EventThreat) -> None:
    lr, lam = params["lr"], params["lam"]
    if not (lr > 0 and 0 <= lam < 1):
        raise ValueError(f"lr must be more than 0 and lam in [0, 1), got lr={lr} and lam={lam}")


def surprise(logits: Tensor, y: Tensor) -> Tensor:
    """-log(1 - p_y) with p = softmax(logits): logits [N, K], y [N] -> [N]. Unlike log p_y it rewards certainty least.

    It is log sum_j exp z_j - log sum_{j != y} exp z_j, which no large logit overflows.
    """
    others = logits.scatter(1, y[:, None], -torch.inf)
    return logits.logsumexp(1) - others.logsumexp(1)


def _direction(delta: Tensor) -> Tensor:
    """Gradient of the l2,1 norm of [N, T, *]: each frame's direction, 0 where the frame is."""
    length = delta.flatten(2).norm(dim=2)
    direction: Tensor = delta / length.clamp(min=_TINY)[..., None, None, None]
    return direction


def whole_edits(
    recording: Recording, delta: NDArray[np.floating], worth: NDArray[np.floating], threat: EventThreat, lens: Lens
) -> tuple[Edits, NDArray[np.int64]]:
    """The whole events that a modifier of the frames asks for, within the budgets.

    Args:
        recording: what is edited.
        delta: how many events more, or less, each place should have, [T, 2, height, width].
        worth: what one event is worth at each place, [T, 2, height, width], at least 0. An event for what is left of an
            entry is worth that part of it.
        threat: its rules are kept.
        lens: how the network sees recordings.

    Returns:
        the edits, and by how many events each place of the frames then differs, [T, 2, height, width], were the frames'
        borders to stay where they are.
    """
    framing, flat = lens.framing, delta.reshape(-1)
    cells = framing.frame_of(recording) * delta[0].size + framing.pixel_of(recording)
    whole = np.maximum(np.rint(flat).astype(np.int64), -np.bincount(cells, minlength=len(flat)))
    (asked,) = np.nonzero(whole)
    units = np.abs(whole[asked])
    cell = asked.repeat(units)
    turn = np.arange(len(cell)) - (np.cumsum(units) - units).repeat(units)
    order = np.argsort((turn - np.abs(flat[cell])) * worth.reshape(-1)[cell], kind="stable")
    cell, turn = cell[order], turn[order]
    # The events of a place are a run of this, and the first of them goes first.
    events, first = np.argsort(cells, kind="stable"), np.searchsorted(np.sort(cells), cell)
    frames, polarities, rows, columns = (index.tolist() for index in np.unravel_index(cell, delta.shape))
    borders = framing.borders(recording).tolist()
    high, wide = recording.sensor.height // framing.height, recording.sensor.width // framing.width
    change, ledger = np.zeros(len(flat), np.int64), Ledger(recording, threat)
    for at, (place, one) in enumerate(zip(cell.tolist(), turn.tolist(), strict=True)):
        if not ledger.left["edits"]:
            break
        if whole[place] < 0:
            change[place] -= ledger.remove(int(events[first[at] + one]))
            continue
        low, length = borders[frames[at]], borders[frames[at] + 1] - borders[frames[at]]
        # Neighbouring places take different pixels of theirs: a lattice would give the attack away.
        spot = (one + frames[at] + rows[at] + 2 * columns[at]) % (high * wide)
        x, y = columns[at] * wide + spot % wide, rows[at] * high + spot // wide
        event = Event(x, y, low + (2 * one + 1) * length // (2 * int(whole[place])), polarities[at])
        change[place] += ledger.add_near(event, low, low + length - 1)
    return ledger.edits(), change.reshape(delta.shape)


SPARSE = Attack(
    sparse,
    "Adam on a modifier of the frames that becomes whole events (DVS-Attacks)",
    takes_steps=True,
    defaults={"lr": 0.25, "lam": 0.1},
    norms=("events",),
    cost=lambda steps: (2 * steps + 1, steps),
    domain="events",
    kinds=(ADDED, REMOVED),
    check=_check,
)
