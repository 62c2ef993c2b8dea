"""Edits put together one by one, each only if it is still allowed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.events.draft import ADDED, REMOVED, SHIFTED, Change, Draft
from attacks.events.threat import EventThreat

_Times = NDArray[np.int64]


@dataclass(frozen=True)
class Wish:
    """An edit whose exact pixel and moment are still open.

    Attributes:
        kind: `added`, `removed` or `shifted`.
        p: the event's polarity.
        event: number of the original event; -1 for one that is new.
        x, y: the event's pixel; of a new one the top left of the pixels that it may take.
        block: rows and columns of the pixels that a new event may take.
        t: the moment that is best, in microseconds.
        low, high: the first and the last that will do.
    """

    kind: str
    p: int
    event: int
    x: int
    y: int
    block: tuple[int, int] = (1, 1)
    t: int = 0
    low: int = 0
    high: int = 0


class Sketch:
    """Adds edits to a draft as long as the threat model allows them.

    As in a ledger, nothing is put where an equal event was taken from, nor taken from where an equal one was put.

    Args:
        draft: what was edited already, within the threat model.
        threat: what is allowed in all.
    """

    def __init__(self, draft: Draft, threat: EventThreat) -> None:
        self._draft, self._gap = draft, threat.min_gap
        self._left = left_of(draft, threat)
        self._changes: list[Change] = []
        self._taken: dict[int, _Times] = {}
        self._edited: set[int] = set()
        self._vacated, self._filled = set(_places(draft)), set(_new_places(draft))
        recording = draft.recording
        self._width = recording.sensor.width
        pixel = recording.y.astype(np.int64) * self._width + recording.x
        # Stable, so that the times of a pixel stay ascending.
        order = np.argsort(pixel, kind="stable")
        self._pixel, self._t = pixel[order], recording.t[order]

    def __len__(self) -> int:
        return len(self._changes)

    def take(self, wish: Wish) -> bool:
        """Add an edit if budget and moments allow it; nothing is done otherwise."""
        if wish.event in self._edited or not self.pays(wish.kind, wish.p):
            return False
        if wish.kind != ADDED and (wish.x, wish.y, wish.p, self._time_of(wish.event)) in self._filled:
            return False
        if wish.kind == REMOVED:
            self._free(wish.x, wish.y, self._time_of(wish.event))
            self._settle(Change(REMOVED, wish.event, wish.x, wish.y, wish.p, -1))
            return True
        if wish.kind == SHIFTED:
            before = self._time_of(wish.event)
            others = _without(self._times(wish.x, wish.y), before)
            t = nearest_free(wish.t, wish.low, wish.high, others, self._gap)
            if t is None or t == before or (wish.x, wish.y, wish.p, t) in self._vacated:
                return False
            self._free(wish.x, wish.y, before)
            self._settle(Change(SHIFTED, wish.event, wish.x, wish.y, wish.p, t))
            return True
        found: tuple[int, int, int] | None = None
        for y in range(wish.y, wish.y + wish.block[0]):
            for x in range(wish.x, wish.x + wish.block[1]):
                t = nearest_free(wish.t, wish.low, wish.high, self._times(x, y), self._gap)
                if (
                    t is not None
                    and (x, y, wish.p, t) not in self._vacated
                    and (found is None or abs(t - wish.t) < abs(found[0] - wish.t))
                ):
                    found = (t, x, y)
                if found and found[0] == wish.t:
                    break
        if found is None:
            return False
        t, x, y = found
        self._settle(Change(ADDED, -1, x, y, wish.p, t))
        return True

    def flip(self, removal: Wish, addition: Wish) -> bool:
        """Replace an event by another, two edits, or none of them."""
        before, left, times = len(self._changes), dict(self._left), dict(self._taken)
        edited, vacated, filled = set(self._edited), set(self._vacated), set(self._filled)
        if self.take(removal) and self.take(addition):
            return True
        del self._changes[before:]
        self._left, self._taken = left, times
        self._edited, self._vacated, self._filled = edited, vacated, filled
        return False

    def pays(self, kind: str, p: int) -> bool:
        """Whether one more such edit is in the budget."""
        return all(self._left[name] > 0 for name in ("edits", kind, "on" if p else "off"))

    @property
    def is_spent(self) -> bool:
        """Whether no edit of any kind is left."""
        return not any(self.pays(kind, p) for kind in (ADDED, REMOVED, SHIFTED) for p in (0, 1))

    def draft(self) -> Draft:
        """What came of it so far."""
        return self._draft.plus(self._changes)

    def _settle(self, change: Change) -> None:
        for name in ("edits", change.kind, "on" if change.p else "off"):
            self._left[name] -= 1
        if change.kind != ADDED:
            # An event put where another one was would be no edit at all, or one that no bound on its kind knows.
            self._vacated.add((change.x, change.y, change.p, int(self._draft.original.t[change.event])))
            self._edited.add(change.event)
        if change.kind != REMOVED:
            self._filled.add((change.x, change.y, change.p, change.t))
            times = self._times(change.x, change.y)
            self._taken[change.y * self._width + change.x] = np.insert(
                times, np.searchsorted(times, change.t), change.t
            )
        self._changes.append(change)

    def _time_of(self, event: int) -> int:
        return int(self._draft.edits.t[event])

    def _times(self, x: int, y: int) -> _Times:
        """When a pixel sends events, ascending."""
        pixel = y * self._width + x
        if pixel not in self._taken:
            start, end = np.searchsorted(self._pixel, [pixel, pixel + 1])
            self._taken[pixel] = self._t[start:end]
        return self._taken[pixel]

    def _free(self, x: int, y: int, t: int) -> None:
        self._taken[y * self._width + x] = _without(self._times(x, y), t)


def left_of(draft: Draft, threat: EventThreat) -> dict[str, int]:
    """What is left of each bound after the edits of a draft."""
    original, edits = draft.original, draft.edits
    moved = ~edits.removed & (edits.t != original.t)
    on = np.concatenate([original.p[edits.removed | moved], edits.p]) > 0
    spent = {
        "edits": len(on),
        ADDED: len(edits.at),
        REMOVED: int(edits.removed.sum()),
        SHIFTED: int(moved.sum()),
        "on": int(on.sum()),
        "off": int((~on).sum()),
    }
    bounds = threat.bounds(len(original))._asdict()
    return {name: bounds[name] - spent[name] for name in spent}


def _places(draft: Draft) -> Iterator[tuple[int, int, int, int]]:
    """Column, row, polarity and time of the events that were removed or moved."""
    original, edits = draft.original, draft.edits
    (gone,) = np.nonzero(edits.removed | (edits.t != original.t))
    return zip(*(values[gone].tolist() for values in (original.x, original.y, original.p, original.t)), strict=True)


def _new_places(draft: Draft) -> Iterator[tuple[int, int, int, int]]:
    """Column, row, polarity and time of the events that were added or moved."""
    edited, (new,) = draft.recording, np.nonzero(draft.untouched < 0)
    return zip(*(values[new].tolist() for values in (edited.x, edited.y, edited.p, edited.t)), strict=True)


def nearest_free(wish: int, low: int, high: int, taken: _Times, gap: int) -> int | None:
    """The moment in [low, high] nearest to `wish` that is at least `gap` away from others; None if there is none.

    Args:
        wish: in [low, high].
        low, high: microseconds.
        taken: the others' moments, ascending.
        gap: microseconds; 0 lets moments coincide.
    """
    if low > high:
        return None
    near = taken[np.searchsorted(taken, low - gap + 1) : np.searchsorted(taken, high + gap)]
    if not gap or not len(near):
        return wish
    options = np.concatenate([[wish], near - gap, near + gap])
    options = options[(options >= low) & (options <= high)]
    at = np.searchsorted(near, options)
    free = options - near[np.maximum(at - 1, 0)] >= gap
    free |= at == 0
    free &= (near[np.minimum(at, len(near) - 1)] - options >= gap) | (at == len(near))
    options = options[free]
    return int(options[np.abs(options - wish).argmin()]) if len(options) else None


def _without(times: _Times, t: int) -> _Times:
    return np.delete(times, np.searchsorted(times, t))
