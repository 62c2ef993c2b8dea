"""Patterns that grow until the network errs: what the attacks of Marchisio et al. (2021) have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor, nn

from attacks.events.base import EventCandidate
from attacks.events.edits import Edits
from attacks.events.ledger import Event, Ledger
from attacks.events.lens import Lens
from attacks.events.sight import Sight
from attacks.events.threat import EventThreat
from attacks.gradients import frozen
from events import Recording

Pattern = Callable[[int], Edits]
"""From how many events may be added to what adds no more than that many."""

POLARITIES = ("on", "off", "both")
_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, are spread evenly however many there are."""


def grow(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    pattern: Callable[[int, Recording], Pattern],
    sizes: int,
) -> EventCandidate:
    """Show the network ever more of a pattern.

    The sizes double up to the budget. A recording gets the first size at which its true class no longer wins, in
    frames made as the dataset makes them; where no size does that, the one whose margin came closest. On a network
    with noise one error may be luck: there all sizes are tried, under the same noise, and the largest margin is taken.

    Args:
        model, recordings, y, threat, lens: as for an attack on recordings.
        pattern: from the number of a recording in the batch, and itself, to its pattern.
        sizes: how many sizes there are at most, at least 1; the last is the budget.

    Returns:
        one recording each; its own where none is closer to an error.
    """
    best = list(recordings)
    bounds = [threat.bounds(len(recording)) for recording in recordings]
    budgets = [min(bound.edits, bound.added) for bound in bounds]
    patterns: dict[int, Pattern] = {}
    sight = Sight.of(model, y, lens)
    with frozen(model):
        margins = sight.margins(range(len(best)), best, 0)
        for halvings in reversed(range(sizes)):
            # A tie is not a correct prediction.
            unbroken = sight.patient | ~(margins >= 0)
            rows = [row for row in np.flatnonzero(unbroken).tolist() if budgets[row] >> halvings]
            if not rows:
                continue
            for row in rows:
                if row not in patterns:
                    patterns[row] = pattern(row, recordings[row])
            tries = [patterns[row](budgets[row] >> halvings).apply(recordings[row]) for row in rows]
            for row, made, found in zip(rows, tries, sight.margins(rows, tries, 0), strict=True):
                if found > margins[row]:
                    best[row], margins[row] = made, found
    return EventCandidate(tuple(best))


def flickering(
    recording: Recording, pixels: Sequence[tuple[int, int]], threat: EventThreat, lens: Lens, polarity: str
) -> Pattern:
    """Pixels that send events in every frame, the first of them first.

    A pixel gets one event in each frame before the next pixel gets any, and once all have theirs it begins anew. Its
    events of a frame are spread evenly over the frame's time, shifted against those of other pixels, so that frames of
    equally many events keep their borders.

    Args:
        recording: what they come to.
        pixels: column and row, the most wanted first.
        threat: its rules are kept.
        lens: whose frames.
        polarity: `on`, `off`, or `both` in turn.
    """
    ledger = Ledger(recording, threat)
    most = min(ledger.left["edits"], ledger.left["added"])
    borders = lens.framing.borders(recording).tolist()
    frames = [(start, end - start) for start, end in pairwise(borders) if end > start]
    rounds = -(-most // max(len(pixels) * len(frames), 1))
    for turn in range(rounds):
        for number, (x, y) in enumerate(pixels):
            phase = (number * _GOLDEN + (turn + 0.5) / rounds) % 1
            for start, length in frames:
                if not most:
                    break
                t = start + min(int(phase * length), length - 1)
                event = Event(x, y, t, polarity_of(polarity, turn + number))
                most -= ledger.add_near(event, start, start + length - 1)
    whole = ledger.edits()
    return lambda size: replace(whole, **{name: getattr(whole, name)[:size] for name in ("x", "y", "p", "at")})


def check_growth(params: Mapping[str, Any], threat: EventThreat) -> None:
    """Refuse parameters that no pattern has.

    Args:
        params: with the `polarity` of a pattern's events and its number of `sizes`.
        threat: its rules.

    Raises:
        ValueError: a polarity by another name, or one whose events the rules forbid, or a number of sizes below 1.
    """
    polarity, sizes = params["polarity"], params["sizes"]
    if polarity not in POLARITIES:
        raise ValueError(f"polarity must be {', '.join(POLARITIES)}, got '{polarity}'")
    if getattr(threat, polarity, None) == 0:
        raise ValueError(f"{polarity}=0 forbids all its events; leave it out or give another polarity")
    if sizes < 1:
        raise ValueError(f"sizes must be at least 1, got {sizes}")


def polarity_of(polarity: str, number: int) -> int:
    """The polarity of event `number`, by which `both` takes turns: 1 is ON."""
    return number % 2 if polarity == "both" else int(polarity == "on")


def evenly(count: int) -> list[int]:
    """The numbers 0, ..., count - 1 in an order whose every beginning is spread evenly over them."""
    order: list[int] = np.argsort(np.argsort(np.arange(count) * _GOLDEN % 1)).tolist()
    return order
