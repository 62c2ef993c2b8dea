"""One recording of an event camera, checked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.integer[Any]]

_LARGEST = np.iinfo(np.int16).max
_END = 2**53
"""Times from here on, 285 years, could not be added to or divided without losing microseconds."""
_MENDS = {
    "x": "whole pixels: numpy.floor(x).astype(numpy.int16)",
    "y": "whole pixels: numpy.floor(y).astype(numpy.int16)",
    "t": "whole microseconds: (seconds * 1e6).astype(numpy.int64)",
    "p": "0 for OFF and 1 for ON: p > 0",
}


@dataclass(frozen=True)
class Sensor:
    """The pixels of an event camera.

    Attributes:
        height, width: rows and columns, each in [1, 32767].

    Raises:
        ValueError: out of range.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if not (1 <= self.height <= _LARGEST and 1 <= self.width <= _LARGEST):
            raise ValueError(f"a sensor has 1 to {_LARGEST} rows and columns, got {self}")

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True, eq=False)
class Recording:
    """What an event camera recorded: at t, pixel (x, y) became brighter (p = 1, ON) or darker (p = 0, OFF).

    A recording never changes: it holds copies of the arrays given, read-only. One without events is legal, and so is
    one of a single polarity. Events may share a microsecond; their order is then a part of the recording, because
    frames of equal event numbers depend on it.

    Attributes:
        x, y: column and row, int16 [n], in [0, width) and [0, height), from the top left corner.
        t: microseconds, int64 [n], in [0, 2^53), never decreasing.
        p: uint8 [n], 1 is ON.
        sensor: the camera's pixels.

    Raises:
        ValueError: anything else; the message names the first event that is wrong, and the mend.
    """

    x: NDArray[np.int16]
    y: NDArray[np.int16]
    t: NDArray[np.int64]
    p: NDArray[np.uint8]
    sensor: Sensor

    def __post_init__(self) -> None:
        arrays = {name: np.asarray(getattr(self, name)) for name in ("x", "y", "t", "p")}
        _check_form(arrays)
        _check_place(arrays["x"], arrays["y"], self.sensor)
        _check_times(arrays["t"])
        _check_polarities(arrays["p"])
        for name, dtype in (("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.uint8)):
            own = np.array(arrays[name], dtype=dtype)
            own.setflags(write=False)
            object.__setattr__(self, name, own)

    @classmethod
    def in_order(cls, x: ArrayLike, y: ArrayLike, t: ArrayLike, p: ArrayLike, sensor: Sensor) -> "Recording":
        """A recording of events that come in any order.

        The sort is stable: events of one microsecond stay as they were, and what is in order is not touched.

        Raises:
            ValueError: as for the class, but for the order.
        """
        arrays = {name: np.asarray(array) for name, array in (("x", x), ("y", y), ("t", t), ("p", p))}
        _check_form(arrays)
        order = np.argsort(arrays["t"], kind="stable")
        ordered = {name: array[order] for name, array in arrays.items()}
        return cls(**ordered, sensor=sensor)

    @classmethod
    def empty(cls, sensor: Sensor) -> "Recording":
        """A recording in which nothing happened."""
        nothing = np.zeros(0, np.int64)
        return cls.in_order(nothing, nothing, nothing, nothing, sensor)

    def between(self, start: int, end: int) -> "Recording":
        """The events with start <= t < end, in microseconds; the times stay as they are."""
        first, last = np.searchsorted(self.t, [start, max(start, end)])
        return Recording(self.x[first:last], self.y[first:last], self.t[first:last], self.p[first:last], self.sensor)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the sensor's size and the events in their order, the same on every machine."""
        digest = hashlib.sha256(f"events 1 {self.sensor} {len(self)}\n".encode())
        for array, dtype in ((self.x, "<i2"), (self.y, "<i2"), (self.t, "<i8"), (self.p, "u1")):
            digest.update(array.astype(dtype, copy=False).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.t)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recording):
            return NotImplemented
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("x", "y", "t", "p"))
        return self.sensor == other.sensor and all(np.array_equal(mine, theirs) for mine, theirs in pairs)

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        span = f", {int(self.t[0])} to {int(self.t[-1])} us" if len(self) else ""
        return f"Recording({len(self)} events on {self.sensor}{span})"


def _check_form(arrays: dict[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.ndim != 1:
            raise ValueError(f"{name} must be one number an event, [n], got {list(array.shape)}")
    lengths = [len(array) for array in arrays.values()]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"x, y, t and p must have one entry an event each, got {', '.join(map(str, lengths))}; "
            "events were lost on the way"
        )
    for name, array in arrays.items():
        # An empty list has no type that would lose anything.
        if len(array) and array.dtype.kind not in ("biu" if name == "p" else "iu"):
            raise ValueError(f"{name} must be integers, got {array.dtype}; give {_MENDS[name]}")


def _check_place(x: Integers, y: Integers, sensor: Sensor) -> None:
    outside = (x < 0) | (x >= sensor.width) | (y < 0) | (y >= sensor.height)
    if at := _first(outside):
        event = at[0]
        raise ValueError(
            f"event {event} is at x = {x[event]}, y = {y[event]}, outside the sensor of {sensor.width} columns and "
            f"{sensor.height} rows; give the camera's own size, or leave such events out"
        )


def _check_times(t: Integers) -> None:
    if at := _first(t < 0):
        raise ValueError(
            f"event {at[0]} is at t = {t[at[0]]} us, before 0; subtract the first time, or, if a 32-bit counter "
            "overflowed, read it as unsigned"
        )
    if t.dtype.itemsize == 8 and (at := _first(t >= _END)):
        raise ValueError(
            f"event {at[0]} is at t = {t[at[0]]} us, not before 2^53; subtract t[0], and give microseconds if these "
            "are nanoseconds"
        )
    if at := _first(t[1:] < t[:-1]):
        now, before = int(t[at[0] + 1]), int(t[at[0]])
        mend = "sort them with Recording.in_order"
        for bits in (32, 31):
            if before - now > 2 ** (bits - 1):
                mend = f"a {bits}-bit counter overflowed there: add 2**{bits} from that event on"
                break
        raise ValueError(f"event {at[0] + 1} at t = {now} us comes after one at t = {before} us; {mend}")


def _check_polarities(p: Integers) -> None:
    if p.dtype.kind != "b" and (at := _first((p != 0) & (p != 1))):
        raise ValueError(f"event {at[0]} has polarity {p[at[0]]}, which must be 0 (OFF) or 1 (ON); give p > 0")


def _first(wrong: NDArray[np.bool_]) -> Sequence[int]:
    """Where it is first true: one index or none."""
    return [int(wrong.argmax())] if wrong.any() else []
