"""A recording as an attack has edited it so far."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.events.edits import Edits
from events import Recording

ADDED, REMOVED, SHIFTED = "added", "removed", "shifted"


class Change(NamedTuple):
    """One edit.

    Attributes:
        kind: `added`, `removed` or `shifted`.
        event: number of the original event; -1 for one that is new.
        x, y, p, t: column, row and polarity of the event, and when it happens from now on, in microseconds.
    """

    kind: str
    event: int
    x: int
    y: int
    p: int
    t: int


@dataclass(frozen=True, eq=False)
class Draft:
    """An original and its edits.

    Attributes:
        original: what the camera recorded.
        edits: what the attacker changed.
    """

    original: Recording
    edits: Edits

    @classmethod
    def of(cls, recording: Recording) -> "Draft":
        """Nothing is changed yet."""
        return cls(recording, Edits.none(recording))

    def plus(self, changes: list[Change]) -> "Draft":
        """With further edits, of originals that are neither removed nor moved yet."""
        old = self.edits
        removed, t = old.removed.copy(), old.t.copy()
        removed[[change.event for change in changes if change.kind == REMOVED]] = True
        for change in changes:
            if change.kind == SHIFTED:
                t[change.event] = change.t
        new = np.array([change[2:] for change in changes if change.kind == ADDED], np.int64).reshape(-1, 4)
        x, y, p, at = (np.concatenate(pair) for pair in zip((old.x, old.y, old.p, old.at), new.T, strict=True))
        return Draft(self.original, Edits(removed, t, x, y, p, at))

    @cached_property
    def recording(self) -> Recording:
        """The events that are left and the new ones; the original itself if nothing was changed."""
        return self.edits.apply(self.original) if self.count else self.original

    @property
    def count(self) -> int:
        """How many edits there are."""
        edits = self.edits
        return int(edits.removed.sum()) + int((edits.t != self.original.t).sum()) + len(edits.at)

    @cached_property
    def untouched(self) -> NDArray[np.int64]:
        """For each event of the recording its number in the original; -1 if it is new or was moved."""
        edits = self.edits
        (kept,) = np.nonzero(~edits.removed)
        order = np.argsort(np.concatenate([edits.t[kept], edits.at]), kind="stable")
        number = np.where(edits.t[kept] == self.original.t[kept], kept, -1)
        return np.concatenate([number, np.full(len(edits.at), -1)])[order]
