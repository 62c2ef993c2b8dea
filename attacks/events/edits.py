"""Changes to one recording, as values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from events import Recording


@dataclass(frozen=True, eq=False)
class Edits:
    """Which events of a recording go, when the others happen, and which are new.

    Attributes:
        removed: events that go, bool [n].
        t: when the others happen, in microseconds, int64 [n]; an event that is not moved keeps its time.
        x, y, p, at: column, row, polarity and time of the events that are new, [k] each.
    """

    removed: NDArray[np.bool_]
    t: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    p: NDArray[np.int64]
    at: NDArray[np.int64]

    @classmethod
    def none(cls, recording: Recording) -> "Edits":
        """Nothing is changed."""
        nothing = np.zeros(0, np.int64)
        return cls(np.zeros(len(recording), np.bool_), recording.t.copy(), nothing, nothing, nothing, nothing)

    def apply(self, recording: Recording) -> Recording:
        """The recording as edited: kept events keep their order, new ones come last in their microsecond.

        Raises:
            ValueError: edits of a recording of another length, or an event off the sensor or before 0.
        """
        if not len(self.removed) == len(self.t) == len(recording):
            raise ValueError(f"edits of {len(self.removed)} events do not fit a recording of {len(recording)}")
        kept = ~self.removed
        return Recording.in_order(
            np.concatenate([recording.x[kept], self.x]).astype(np.int64),
            np.concatenate([recording.y[kept], self.y]).astype(np.int64),
            np.concatenate([self.t[kept], self.at]).astype(np.int64),
            np.concatenate([recording.p[kept], self.p]).astype(np.int64),
            recording.sensor,
        )
