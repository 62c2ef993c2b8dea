"""New events of a recording: how many of which kind are allowed, and the times at which their pixels have room."""

from bisect import bisect_left, bisect_right, insort
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.events.edits import Edits
from attacks.events.threat import Bounds
from events import Recording

Whole = NDArray[np.int64]


class Added(NamedTuple):
    """Events to be added, the most wanted first.

    Attributes:
        x, y: column and row, [k].
        p: polarity, [k].
        t: microsecond at which each is wanted, [k].
        low, high: first and last microsecond at which it may come instead, [k].
    """

    x: Whole
    y: Whole
    p: Whole
    t: Whole
    low: Whole
    high: Whole

    def take(self, which: slice | NDArray[np.bool_]) -> "Added":
        return Added(*(values[which] for values in self))


def no_events() -> Added:
    """Nothing to add."""
    return Added(*np.zeros((6, 0), np.int64))


def additions(recording: Recording, added: Added) -> Edits:
    """The edit that only adds these events."""
    return replace(Edits.none(recording), x=added.x, y=added.y, p=added.p, at=added.t)


def allowed(bounds: Bounds, p: Whole, removes: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Which edits the budgets leave, where the first ones are the most wanted: bool [k].

    Args:
        bounds: of the recording.
        p: polarity of each edited event, [k].
        removes: whether it is removed rather than added, [k]; none is if not given.
    """
    gone = np.zeros(len(p), np.bool_) if removes is None else removes
    left = np.ones(len(p), np.bool_)
    kinds = ((bounds.added, ~gone), (bounds.removed, gone), (bounds.on, p == 1), (bounds.off, p == 0))
    for most, kind in (*kinds, (bounds.edits, left.copy())):
        left &= ~kind | (np.cumsum(left & kind) <= most)
    return left


class Room:
    """The microseconds of each pixel that are taken.

    Args:
        recording: what the new events come to.
        gap: microseconds that a new event keeps from every other of its pixel, at least 0.
    """

    def __init__(self, recording: Recording, gap: int) -> None:
        self._gap, self._width = gap, recording.sensor.width
        pixel = recording.y.astype(np.int64) * self._width + recording.x
        # Stable, so that a pixel's times are in order.
        order = np.argsort(pixel, kind="stable")
        self._pixels, self._times = pixel[order], recording.t[order]

    def place(self, wanted: Added, most: int) -> Added:
        """The first `most` events that find room, each at the nearest microsecond to the wanted one."""
        when = self.times(wanted, most)
        return wanted._replace(t=when).take(when >= 0)

    def times(self, wanted: Added, most: int) -> Whole:
        """When each event comes, [k]: at the nearest microsecond that is free; -1 without room, or after `most`."""
        if not self._gap:
            return np.where((wanted.low <= wanted.high) & (np.arange(len(wanted.t)) < most), wanted.t, -1)
        taken: dict[int, list[int]] = {}
        found = np.full(len(wanted.t), -1)
        pixels = wanted.y * self._width + wanted.x
        each = zip(*(column.tolist() for column in (pixels, wanted.t, wanted.low, wanted.high)), strict=True)
        count = 0
        for number, (pixel, t, low, high) in enumerate(each):
            if count == most:
                break
            if pixel not in taken:
                first, last = np.searchsorted(self._pixels, [pixel, pixel + 1])
                taken[pixel] = self._times[first:last].tolist()
            free = _nearest(taken[pixel], t, low, high, self._gap)
            if free is not None:
                insort(taken[pixel], free)
                found[number] = free
                count += 1
        return found


def _nearest(taken: list[int], t: int, low: int, high: int, gap: int) -> int | None:
    """The microsecond in [low, high] nearest to t that is at least `gap` from all that are taken; None if none is."""
    later = max(t, low)
    while (after := bisect_right(taken, later - gap)) < len(taken) and taken[after] < later + gap:
        later = taken[after] + gap
    earlier = min(t, high)
    while (before := bisect_left(taken, earlier + gap)) and taken[before - 1] > earlier - gap:
        earlier = taken[before - 1] - gap
    free = [time for time in (earlier, later) if low <= time <= high]
    return min(free, key=lambda time: abs(time - t), default=None)
