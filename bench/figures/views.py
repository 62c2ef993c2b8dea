"""What an attack changed in event data, as counts by window of time: what is drawn of a sample."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.recount import changes
from events import Recording

WINDOWS = 24
_MILLISECOND = 1000

Counts = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class View:
    """Clean and attacked event data and their difference, cut into K windows.

    Attributes:
        clean, attacked: counts, channel 0 OFF and 1 ON, [K, 2, H, W].
        added, removed, moved: how much changed at each pixel, either polarity, [K, H, W]; of a moved event the time it
            was moved to counts.
        edges: where windows begin and end, in units of `unit`, [K + 1].
        unit: `ms`, `µs` or `time step`.
        whole: whether changes are whole events, which can be marked one by one.
    """

    clean: Counts
    attacked: Counts
    added: Counts
    removed: Counts
    moved: Counts
    edges: Counts
    unit: str
    whole: bool

    @property
    def changed(self) -> float:
        """Events, or counts, that were added, removed and moved."""
        return float(self.added.sum() + self.removed.sum() + self.moved.sum())


def view_of_recordings(original: Recording, edited: Recording, max_shift: int, windows: int = WINDOWS) -> View:
    """Two recordings in windows of equal time.

    Args:
        original, edited: of one sensor.
        max_shift: microseconds within which an event may have been moved.
        windows: how many.
    """
    times = np.concatenate([original.t, edited.t, [0]])
    first = int(times[:-1].min()) if len(times) > 1 else 0
    span = int(times.max()) + 1 - first
    size = (windows, 2, original.sensor.height, original.sensor.width)

    def counts(recording: Recording, which: NDArray[np.bool_] | NDArray[np.int64]) -> Counts:
        window = (recording.t[which] - first) * windows // span
        place = (window, recording.p[which], recording.y[which], recording.x[which])
        at = np.ravel_multi_index(tuple(index.astype(np.int64) for index in place), size)
        return np.bincount(at, minlength=int(np.prod(size))).reshape(size).astype(np.float64)

    found = changes(original, edited, max_shift)
    clean, attacked = (counts(one, np.ones(len(one), np.bool_)) for one in (original, edited))
    added, removed = counts(edited, found.added).sum(1), counts(original, found.removed).sum(1)
    moved = counts(edited, found.moved[:, 1]).sum(1)
    edges = first + np.arange(windows + 1) * (span / windows)
    short = span < windows * _MILLISECOND
    return View(
        clean, attacked, added, removed, moved, edges if short else edges / _MILLISECOND, "µs" if short else "ms", True
    )


def view_of_frames(clean: Counts, attacked: Counts) -> View:
    """Two stacks of frames in counts, [T, 2, H, W] each; a window is a frame."""
    change = attacked - clean
    more, less = np.maximum(change, 0).sum(1), np.maximum(-change, 0).sum(1)
    # Number t of a time axis is in the middle of step t.
    edges = np.arange(len(clean) + 1) + 0.5
    return View(clean, attacked, more, less, np.zeros_like(more), edges, "time step", False)
