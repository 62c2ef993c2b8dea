"""All single edits of a draft, the most promising first."""

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from attacks.events.draft import ADDED, REMOVED, SHIFTED, Draft
from attacks.events.gains import NEVER, Floats, addition_gains, move_gains, move_times, removal_gains
from attacks.events.sketch import Wish
from attacks.events.threat import EventThreat
from events import Framing

KINDS = (REMOVED, ADDED, SHIFTED)


class Ranking:
    """Single edits ordered by what they are worth to first order.

    Removals and moves are of original events as the camera recorded them; what an attack added or moved is left as it
    is. An addition is a place in a frame, whose pixel and moment are found when it is taken.

    Args:
        draft: what was edited already.
        framing: how events are counted.
        slope: of the loss in each count, [T, 2, height, width].
        threat: what is allowed; a kind of edit that it forbids is left out.
        most: at most so many edits are ranked.
        kinds: which kinds of edit to rank.

    Attributes:
        gains: first-order gain of each edit, falling, float64 [m].
        numbers: of each edit among all that there are, int64 [m]; an edit that is still possible after another keeps
            its number.
    """

    def __init__(
        self,
        draft: Draft,
        framing: Framing,
        slope: Floats,
        threat: EventThreat,
        most: int,
        kinds: Collection[str] = KINDS,
    ) -> None:
        self._draft, self._framing = draft, framing
        recording, original = draft.recording, draft.original
        n, last = len(original), int(original.t[-1]) if len(original) else 0
        bounds = threat.bounds(n)
        self._reach = threat.max_shift
        self._at, self._event = draft.untouched >= 0, draft.untouched[draft.untouched >= 0]
        self._starts: dict[str, int] = {REMOVED: 0, ADDED: n, SHIFTED: n + slope.size}
        # Removals by original event, additions by frame and place, moves by original event and frame.
        parts = [np.full(n, NEVER), np.full(slope.size, NEVER)]
        if REMOVED in kinds and bounds.removed:
            parts[0][self._event] = removal_gains(recording, framing, slope)[self._at]
        if ADDED in kinds and bounds.added:
            self._times = framing.times_for_one_more(recording, last)
            gains = addition_gains(recording, framing, slope)
            gains[self._times[:, 0] > self._times[:, 1]] = NEVER
            parts[1] = gains.reshape(-1)
        if SHIFTED in kinds and bounds.shifted:
            self._windows = move_times(recording, framing, last)
            moves = np.full((n, framing.T), NEVER)
            gains = move_gains(recording, framing, slope)[self._at]
            low, high = self._window(np.arange(framing.T), framing.frame_of(recording)[self._at][:, None], self._event)
            moves[self._event] = np.where(low <= high, gains, NEVER)
            self._frame = np.zeros(n, np.int64)
            self._frame[self._event] = framing.frame_of(recording)[self._at]
            parts.append(moves.reshape(-1))
        every = np.concatenate(parts)
        (able,) = np.nonzero(every > NEVER)
        if len(able) > most:
            able = np.sort(able[np.argpartition(-every[able], most)[:most]])
        self.numbers: NDArray[np.int64] = able[np.argsort(-every[able], kind="stable")]
        self.gains: Floats = every[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Wish]:
        return (self.wish(place) for place in range(len(self)))

    def reorder(self, gains: Floats) -> None:
        """Order the edits anew, by other gains [m] of theirs."""
        order = np.argsort(-gains, kind="stable")
        self.numbers, self.gains = self.numbers[order], gains[order]

    def kind(self, place: int) -> str:
        """Of the edit at a place of the ranking."""
        number = self.numbers[place]
        return max(self._starts, key=lambda kind: (self._starts[kind] <= number, self._starts[kind]))

    def wish(self, place: int) -> Wish:
        """The edit at a place of the ranking."""
        kind, original = self.kind(place), self._draft.original
        number = int(self.numbers[place]) - self._starts[kind]
        if kind == ADDED:
            return self._addition(number)
        event, frame = (number, 0) if kind == REMOVED else divmod(number, self._framing.T)
        p, x, y, t = (int(values[event]) for values in (original.p, original.x, original.y, original.t))
        if kind == REMOVED:
            return Wish(REMOVED, p, event, x, y)
        low, high = (int(value) for value in self._window(frame, int(self._frame[event]), event))
        return Wish(SHIFTED, p, event, x, y, t=min(max(t, low), high), low=low, high=high)

    def _addition(self, number: int) -> Wish:
        framing, sensor = self._framing, self._draft.original.sensor
        frame, p, row, column = np.unravel_index(number, (framing.T, 2, framing.height, framing.width))
        block = (sensor.height // framing.height, sensor.width // framing.width)
        low, high = (int(value) for value in self._times[frame])
        x, y = int(column) * block[1], int(row) * block[0]
        return Wish(ADDED, int(p), -1, x, y, block, (low + high) // 2, low, high)

    def _window(
        self, frame: NDArray[np.int64] | int, now: NDArray[np.int64] | int, event: NDArray[np.int64] | int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last microsecond in which an event of frame `now` may be to be counted in `frame`."""
        t = self._draft.original.t[event]
        t = t[:, None] if np.ndim(t) else t
        ahead, behind = self._windows
        later = np.asarray(frame) > now
        low, high = (np.where(later, ahead[frame, end], behind[frame, end]) for end in (0, 1))
        return np.maximum(low, t - self._reach), np.minimum(high, t + self._reach)
