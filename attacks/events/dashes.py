"""Where a dash of two pixels is at which time: what `dash` and `mf_dash` have in common."""

import numpy as np
from numpy.typing import NDArray

from attacks.events.edits import Edits
from attacks.events.growth import Pattern, polarity_of
from attacks.events.ledger import Event, Ledger
from attacks.events.lens import Lens
from attacks.events.threat import EventThreat
from events import Recording


def moving_dash(
    recording: Recording, share: float, threat: EventThreat, lens: Lens, polarity: str, mask: int | None = None
) -> Pattern:
    """A dash that moves along a row while the recording lasts.

    The time is cut into as many slots as the dash may have pairs of events, the same number in each frame. In a slot
    both pixels send one event, at any microsecond of it that is free.

    Args:
        recording: what it comes to.
        share: chooses the row, in (0, 1].
        threat: its rules are kept.
        lens: whose frames.
        polarity: `on`, `off`, or `both` in turn.
        mask: see `walk`.

    Raises:
        ValueError: a sensor of one column.
    """
    if recording.sensor.width < 2:
        raise ValueError(f"a dash is two pixels beside each other; a sensor of {recording.sensor} has one column")
    row = min(int(share * recording.sensor.height), recording.sensor.height - 1)
    borders = lens.framing.borders(recording)

    def pattern(size: int) -> Edits:
        ledger = Ledger(recording, threat)
        places = walk(recording, row, size // 2, mask).tolist()
        edges = np.interp(np.linspace(0, lens.framing.T, len(places) + 1), np.arange(len(borders)), borders)
        ends = np.ceil(edges).astype(np.int64).tolist()
        for slot, (x, y) in enumerate(places):
            low, high = ends[slot], max(ends[slot + 1] - 1, ends[slot])
            for beside in (0, 1):
                event = Event(x + beside, y, (low + high) // 2, polarity_of(polarity, slot))
                ledger.add_near(event, low, high)
        return ledger.edits()

    return pattern


def walk(recording: Recording, row: int, slots: int, mask: int | None) -> NDArray[np.int64]:
    """Where the dash is in each slot: column and row of its left pixel, [m, 2].

    It moves from left to right by a pixel a slot. With more slots than the row has places it stays at each for equally
    many. With a `mask` it leaves a place before one of its pixels has more than so many events, the recording's own
    among them, and goes on in the next row where the row is used up; it passes over pixels that have so many already.

    Args:
        recording: what it comes to.
        row: where it begins.
        slots: how many there are.
        mask: events that a pixel may have in all; None is any number.

    Returns:
        `slots` places, or fewer where the mask leaves no more.
    """
    height, width = recording.sensor.height, recording.sensor.width
    usual = np.arange(slots) * min(width - 1, slots) // max(slots, 1)
    places = usual if mask is None else _unmasked(recording, row, usual, mask)
    return np.stack([places % (width - 1), (row + places // (width - 1)) % height], 1)


def _unmasked(recording: Recording, row: int, usual: NDArray[np.int64], mask: int) -> NDArray[np.int64]:
    height, width = recording.sensor.height, recording.sensor.width
    room = mask - np.bincount(recording.y.astype(np.int64) * width + recording.x, minlength=height * width)
    # Its own row first.
    left = np.roll(room.reshape(height, width), -row, axis=0).tolist()
    found, here = [], 0
    for place in usual.tolist():
        here = max(here, place)
        while here < height * (width - 1):
            line, column = left[here // (width - 1)], here % (width - 1)
            if min(line[column], line[column + 1]) > 0:
                line[column] -= 1
                line[column + 1] -= 1
                found.append(here)
                break
            here += 1
    return np.array(found, np.int64)
