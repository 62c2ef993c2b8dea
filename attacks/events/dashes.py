"""Where a dash of two pixels is at which time: what `dash` and `mf_dash` have in common."""

import numpy as np

from attacks.events.growth import Pattern, polarities
from attacks.events.lens import Lens
from attacks.events.placing import Added, Room, Whole, additions, allowed, no_events
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
        threat: its budgets and its gap are kept.
        lens: whose frames.
        polarity: `on`, `off`, or `both` in turn.
        mask: see `walk`.

    Raises:
        ValueError: a sensor of one column.
    """
    if recording.sensor.width < 2:
        raise ValueError(f"a dash is two pixels beside each other; a sensor of {recording.sensor} has one column")
    row = min(int(share * recording.sensor.height), recording.sensor.height - 1)
    bounds = threat.bounds(len(recording))
    borders, room = lens.framing.borders(recording), Room(recording, threat.min_gap)

    def pattern(size: int) -> Added:
        places = walk(recording, row, size // 2, mask)
        if not len(places):
            return no_events()
        edges = np.interp(np.linspace(0, lens.framing.T, len(places) + 1), np.arange(len(borders)), borders)
        slot = np.arange(len(places)).repeat(2)
        low = np.ceil(edges).astype(np.int64)[slot]
        high = np.maximum(np.ceil(edges).astype(np.int64)[slot + 1] - 1, low)
        x, y = places[slot, 0] + np.arange(len(slot)) % 2, places[slot, 1]
        placed = room.place(Added(x, y, polarities(polarity, slot), (low + high) // 2, low, high), len(slot))
        return placed.take(allowed(bounds, placed.p))

    return lambda size: additions(recording, pattern(size))


def walk(recording: Recording, row: int, slots: int, mask: int | None) -> Whole:
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


def _unmasked(recording: Recording, row: int, usual: Whole, mask: int) -> Whole:
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
