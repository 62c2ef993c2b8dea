"""Patterns that grow until the network errs: what the attacks of Marchisio et al. (2021) have in common."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from attacks.events.base import EventCandidate
from attacks.events.edits import Edits
from attacks.events.lens import Lens
from attacks.events.placing import Added, Room, Whole, additions, allowed, no_events
from attacks.events.reframed import reframed_margins
from attacks.events.threat import EventThreat
from attacks.gradients import SpikeGradient, estimating, frozen
from events import Recording
from models.surrogates import Surrogate

Pattern = Callable[[int], Edits]
"""From how many events may be added to what adds no more than that many."""

POLARITIES = ("on", "off", "both")

Gradient = Surrogate | SpikeGradient | None


def grow(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    pattern: Callable[[int, Recording], Pattern],
    *,
    gradient: Gradient,
    eot: int | None,
    sizes: int,
) -> EventCandidate:
    """Show the network ever more of a pattern.

    The sizes double up to the budget. A recording gets the first size at which its true class no longer wins, in
    frames made as the dataset makes them; where no size does that, the one whose margin came closest.

    Args:
        model, recordings, y, threat, lens, gradient, eot: as for an attack on recordings.
        pattern: from the number of a recording in the batch, and itself, to its pattern.
        sizes: how many sizes there are at most, at least 1; the last is the budget.

    Returns:
        one recording each; its own where none is closer to an error.

    """
    best = list(recordings)
    bounds = [threat.bounds(len(recording)) for recording in recordings]
    budgets = [min(bound.edits, bound.added) for bound in bounds]
    patterns: dict[int, Pattern] = {}
    with estimating(model, gradient, eot), frozen(model):
        margins = reframed_margins(model, best, y, lens)
        for size in range(sizes):
            # A tie is not a correct prediction.
            left = torch.nonzero(~(margins >= 0)).squeeze(1)
            numbers = [row for row in left.tolist() if budgets[row] >> (sizes - 1 - size)]
            if not numbers:
                continue
            tries = list(best)
            for row in numbers:
                if row not in patterns:
                    patterns[row] = pattern(row, recordings[row])
                tries[row] = patterns[row](budgets[row] >> (sizes - 1 - size)).apply(recordings[row])
            rows = torch.tensor(numbers, device=left.device)
            found = reframed_margins(model, tries, y, lens, rows)
            better = found > margins[rows]
            for row in rows[better].tolist():
                best[row] = tries[row]
            margins[rows[better]] = found[better]
    return EventCandidate(tuple(best))


def flickering(recording: Recording, pixels: Whole, threat: EventThreat, lens: Lens, polarity: str) -> Pattern:
    """Pixels that send events in every frame, the first of them first.

    A pixel gets one event in each frame before the next pixel gets any, and once all have theirs it begins anew. A
    pixel's events of a frame are spread evenly over the frame's time, each pixel's shifted
    against the others', so that frames of equally many events keep their borders.

    Args:
        recording: what they come to.
        pixels: column and row, the most wanted first, [m, 2].
        threat: its budgets and its gap are kept.
        lens: whose frames.
        polarity: `on`, `off`, or `both` in turn.
    """
    bounds = threat.bounds(len(recording))
    most = min(bounds.edits, bounds.added)
    borders = lens.framing.borders(recording)
    (frames,) = np.nonzero(borders[1:] > borders[:-1])
    if not (most and len(frames) and len(pixels)):
        return lambda size: additions(recording, no_events())
    rounds = -(-most // (len(pixels) * len(frames)))
    number = np.arange(rounds * len(pixels) * len(frames))
    frame = frames[number % len(frames)]
    turn, pixel = np.divmod(number // len(frames), len(pixels))
    start, length = borders[frame], borders[frame + 1] - borders[frame]
    phase = (pixel * _GOLDEN + (turn + 0.5) / rounds) % 1
    t = start + np.minimum((phase * length).astype(np.int64), length - 1)
    wanted = Added(pixels[pixel, 0], pixels[pixel, 1], polarities(polarity, turn + pixel), t, start, start + length - 1)
    # A pixel that has no room for all of its events leaves them to others.
    placed = Room(recording, threat.min_gap).place(wanted.take(slice(2 * most)), most)
    placed = placed.take(allowed(bounds, placed.p))
    return lambda size: additions(recording, placed.take(slice(size)))


def check_growth(polarity: str, sizes: int) -> None:
    """Refuse parameters that no pattern has.

    Raises:
        ValueError: a polarity by another name, or a number of sizes below 1.
    """
    if polarity not in POLARITIES:
        raise ValueError(f"polarity must be {', '.join(POLARITIES)}, got '{polarity}'")
    if sizes < 1:
        raise ValueError(f"sizes must be at least 1, got {sizes}")


def polarities(polarity: str, number: Whole) -> Whole:
    """The polarity of each event, int64 like `number`, by which `both` takes turns."""
    return number % 2 if polarity == "both" else np.full_like(number, polarity == "on")


_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, are spread evenly however many there are."""


def evenly(count: int) -> Whole:
    """The numbers 0, ..., count - 1 in an order whose every beginning is spread evenly over them."""
    return np.argsort(np.argsort(np.arange(count) * _GOLDEN % 1))
