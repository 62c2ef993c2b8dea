"""Frames of event counts, as networks see a recording."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from events.recording import Recording, Sensor

WAYS = ("number", "time")


@dataclass(frozen=True)
class Framing:
    """Cuts a recording into T frames and counts events: every event is counted once, in one frame.

    The cuts are those of SpikingJelly's `integrate_events_by_fixed_frames_number` (Fang et al., Science Advances 2023),
    which most works on event data use. For events i = 0, ..., n - 1 at times t_i:

        number: frame i // d with d = n // T, at most T - 1
        time:   frame (t_i - t_0) // d with d = (t_{n-1} - t_0) // T microseconds, at most T - 1

    so the last frame takes the rest: up to T - 1 events more, or up to T - 1 microseconds more and the last event's own
    microsecond. Where SpikingJelly's code fails, results are defined:

        no events:           every frame is zero
        fewer events than T: by number d = 0, so all events are in the last frame, the others are empty
        a span below T us:   by time d = 1 is used, so the last frames are empty
        a pause by time:     the frames within it are empty

    Smaller frames add up blocks of pixels, so that counts stay whole numbers and none is lost.

    Attributes:
        T: number of frames, at least 1.
        by: `number` (frames of equally many events) or `time` (frames of equal spans).
        height, width: of a frame; the sensor's must be multiples of them.

    Raises:
        ValueError: a value out of range.
    """

    T: int
    by: str
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.T < 1:
            raise ValueError(f"T must be at least 1, got {self.T}")
        if self.by not in WAYS:
            raise ValueError(f"by must be {' or '.join(WAYS)}, got '{self.by}'")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"frames have at least one row and column, got {self.height}x{self.width}")

    def check(self, sensor: Sensor) -> None:
        """Refuse a sensor whose pixels do not fall into blocks of one size.

        Raises:
            ValueError: its height or width is not a multiple; lists the square sizes that are possible.
        """
        if sensor.height % self.height or sensor.width % self.width:
            side = min(sensor.height, sensor.width)
            fitting = [k for k in range(side, 0, -1) if sensor.height % k == 0 and sensor.width % k == 0]
            raise ValueError(
                f"frames of {self.height}x{self.width} do not divide a sensor of {sensor} into whole blocks, so counts "
                f"would become fractions; choose from {', '.join(map(str, fitting))}"
            )

    def frame_of(self, recording: Recording) -> NDArray[np.int64]:
        """The frame that each event is counted in: int64 [n], in [0, T), never decreasing."""
        if not len(recording):
            return np.zeros(0, np.int64)
        if self.by == "number":
            return self.by_number(len(recording))
        since = recording.t - recording.t[0]
        index: NDArray[np.int64] = np.minimum(since // self._span(recording), self.T - 1)
        return index

    def borders(self, recording: Recording) -> NDArray[np.int64]:
        """When each frame begins, and when the last one ends: int64 [T + 1] in microseconds, never decreasing.

        Frame f sees the time from borders[f] up to, but not including, borders[f + 1]. By number two frames share a
        microsecond where their events do; it is then the later one's. An empty frame by number takes no time.
        """
        first, last = (int(recording.t[0]), int(recording.t[-1])) if len(recording) else (0, -1)
        if self.by == "time":
            starts = first + np.arange(self.T) * (self._span(recording) if len(recording) else 1)
        else:
            events = np.searchsorted(self.frame_of(recording), np.arange(self.T))
            starts = recording.t[events] if len(recording) else np.zeros(self.T, np.int64)
        borders: NDArray[np.int64] = np.minimum(np.append(starts, last + 1), last + 1)
        return borders

    def by_number(self, n: int) -> NDArray[np.int64]:
        """The frame of each of n events in their order if frames hold equally many: int64 [n]."""
        share = n // self.T
        return np.minimum(np.arange(n) // share, self.T - 1) if share else np.full(n, self.T - 1)

    def pixel_of(self, recording: Recording) -> NDArray[np.int64]:
        """Where in its frame each event is counted: int64 [n], (p * height + row) * width + column."""
        rows = recording.y // (recording.sensor.height // self.height)
        columns = recording.x // (recording.sensor.width // self.width)
        place: NDArray[np.int64] = (recording.p.astype(np.int64) * self.height + rows) * self.width + columns
        return place

    def times_for_one_more(self, recording: Recording, last: int) -> NDArray[np.int64]:
        """When one event more would be counted in each frame, if it came after the others of its microsecond.

        By time only moments between the first and the last event are given: others move every border.

        Args:
            recording: the events there are.
            last: the latest moment that is allowed, in microseconds, not before any event.

        Returns:
            int64 [T, 2], first and last microsecond; the first is the later one where there is no such moment.
        """
        n, t = len(recording), recording.t
        if self.by == "time" and n:
            first = int(t[0]) + self._span(recording) * np.arange(self.T)
            end = np.append(first[1:] - 1, t[-1])
            return np.stack([first, np.minimum(end, t[-1])], 1)
        frame = self.by_number(n + 1)
        low, high = (np.searchsorted(frame, np.arange(self.T), side) for side in ("left", "right"))
        # Position i is taken by an event that comes not before event i - 1 and strictly before event i.
        earliest, latest = np.append(0, t), np.append(t - 1, last)
        times = np.stack([earliest[np.minimum(low, n)], latest[np.maximum(high - 1, 0)]], 1)
        times[low == high] = (0, -1)
        return times

    def _span(self, recording: Recording) -> int:
        """Microseconds of a frame cut by time."""
        return max(int(recording.t[-1] - recording.t[0]) // self.T, 1)

    def frames(self, recording: Recording) -> NDArray[np.int32]:
        """How many events each place of each frame saw.

        Args:
            recording: of any length.

        Returns:
            int32 [T, 2, height, width], channel 0 OFF and channel 1 ON; its sum is the number of events.

        Raises:
            ValueError: the sensor's size is not a multiple of the frames'.
        """
        self.check(recording.sensor)
        place = self.frame_of(recording) * (2 * self.height * self.width) + self.pixel_of(recording)
        counts = np.bincount(place, minlength=self.T * 2 * self.height * self.width)
        return counts.reshape(self.T, 2, self.height, self.width).astype(np.int32)
