"""A recording while it is edited: what was done, what is still allowed."""

from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np

from attacks.events.edits import Edits
from attacks.events.threat import EventThreat
from events import Recording


class Event(NamedTuple):
    """One event: column, row, microseconds, polarity."""

    x: int
    y: int
    t: int
    p: int


class Ledger:
    """Edits of one recording, one at a time, each refused where a rule is against it.

    Every event is edited once at most. Nothing is added or moved to where an equal event was taken from, and none is
    taken from where an equal one was put: that would be no edit at all, one that no bound on its kind knows, or two
    events of one microsecond that changed places. What is left can be explained in one way only, so the edits of a
    ledger are always legal.

    Args:
        recording: what is edited.
        threat: the rules.
    """

    def __init__(self, recording: Recording, threat: EventThreat) -> None:
        self.recording, self.threat = recording, threat
        self.left = dict(zip(("edits", "added", "removed", "shifted"), threat.bounds(len(recording))[:4], strict=True))
        bounds = threat.bounds(len(recording))
        self._by_polarity = [bounds.off, bounds.on]
        self._last = int(recording.t[-1]) if len(recording) else -1
        self._removed = np.zeros(len(recording), np.bool_)
        self._t = recording.t.astype(np.int64)
        self._new: list[Event] = []
        self._touched = set[int]()
        self._vacated, self._filled = set[Event](), set[Event]()
        self._pixels: dict[tuple[int, int], list[int]] = {}
        for x, y, t in zip(recording.x.tolist(), recording.y.tolist(), recording.t.tolist(), strict=True):
            self._pixels.setdefault((x, y), []).append(t)

    def room(self, kind: str, polarity: int) -> bool:
        """Whether one more edit of a kind (`added`, `removed`, `shifted`) and polarity is within the budget."""
        return self.left["edits"] > 0 and self.left[kind] > 0 and self._by_polarity[polarity] > 0

    def event(self, number: int) -> Event:
        """An original event."""
        r = self.recording
        return Event(int(r.x[number]), int(r.y[number]), int(r.t[number]), int(r.p[number]))

    def remove(self, number: int) -> bool:
        """Remove an original event; False where that is not allowed."""
        event = self.event(number)
        if number in self._touched or event in self._filled or not self.room("removed", event.p):
            return False
        self._removed[number] = True
        self._pixels[event.x, event.y].remove(event.t)
        self._leave(number, event, "removed")
        return True

    def move(self, number: int, t: int) -> bool:
        """Move an original event to another time; False where that is not allowed."""
        event = self.event(number)
        if number in self._touched or event in self._filled or not self.room("shifted", event.p):
            return False
        if t == event.t or abs(t - event.t) > self.threat.max_shift:
            return False
        times = self._pixels[event.x, event.y]
        times.remove(event.t)
        if not self._fits(event._replace(t=t)):
            insort(times, event.t)
            return False
        insort(times, t)
        self._t[number] = t
        self._filled.add(event._replace(t=t))
        self._leave(number, event, "shifted")
        return True

    def add(self, event: Event) -> bool:
        """Add an event; False where that is not allowed."""
        sensor = self.recording.sensor
        if not (0 <= event.x < sensor.width and 0 <= event.y < sensor.height and event.p in (0, 1)):
            return False
        if not self.room("added", event.p) or not self._fits(event):
            return False
        insort(self._pixels.setdefault((event.x, event.y), []), event.t)
        self._new.append(event)
        self._filled.add(event)
        self._spend("added", event.p)
        return True

    def add_near(self, event: Event, low: int, high: int) -> bool:
        """Add an event at the microsecond of [low, high] nearest to its own where that is allowed; False if none is."""
        earlier, later = min(event.t, high), max(event.t, low)
        while earlier >= low and (before := self._in_the_way(event._replace(t=earlier))) is not None:
            earlier = before[0]
        while later <= high and (after := self._in_the_way(event._replace(t=later))) is not None:
            later = after[1]
        free = [t for t in (earlier, later) if low <= t <= high]
        return bool(free) and self.add(event._replace(t=min(free, key=lambda t: abs(t - event.t))))

    def edits(self) -> Edits:
        """What was done so far."""
        new = np.array(self._new, np.int64).reshape(-1, 4)
        return Edits(self._removed.copy(), self._t.copy(), x=new[:, 0], y=new[:, 1], p=new[:, 3], at=new[:, 2])

    def _fits(self, event: Event) -> bool:
        return 0 <= event.t <= self._last and self._in_the_way(event) is None

    def _in_the_way(self, event: Event) -> tuple[int, int] | None:
        """The times before and after whatever forbids an event at its own; None if nothing does."""
        if event in self._vacated:
            return event.t - 1, event.t + 1
        gap, times = self.threat.min_gap, self._pixels.get((event.x, event.y), [])
        at = bisect_left(times, event.t - gap + 1)
        if not gap or at == len(times) or times[at] >= event.t + gap:
            return None
        return times[at] - gap, times[at] + gap

    def _leave(self, number: int, event: Event, kind: str) -> None:
        self._touched.add(number)
        self._vacated.add(event)
        self._spend(kind, event.p)

    def _spend(self, kind: str, polarity: int) -> None:
        self.left["edits"] -= 1
        self.left[kind] -= 1
        self._by_polarity[polarity] -= 1
