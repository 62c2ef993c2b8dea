"""A recording is what it says, or it is refused in one line."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import Recording, Sensor

SENSOR = Sensor(4, 6)


def columns(**changes: Any) -> dict[str, Any]:
    made = {"x": np.array([0, 5, 2]), "y": np.array([3, 0, 1]), "t": np.array([7, 7, 900]), "p": np.array([1, 0, 1])}
    return made | changes


def test_a_recording_holds_its_own_arrays_in_fixed_types() -> None:
    given_arrays = columns()
    recording = Recording(**given_arrays, sensor=SENSOR)
    assert [getattr(recording, name).dtype for name in "xytp"] == [np.int16, np.int16, np.int64, np.uint8]
    given_arrays["t"][0] = 0
    assert recording.t.tolist() == [7, 7, 900]
    with pytest.raises(ValueError, match="read-only"):
        recording.t[0] = 0
    assert len(recording) == 3
    assert repr(recording) == "Recording(3 events on 4x6, 7 to 900 us)"


def test_polarities_may_be_truth_values() -> None:
    assert Recording(**columns(p=np.array([True, False, True])), sensor=SENSOR).p.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.array([0, 6, 2])}, r"event 1 is at x = 6, y = 0, outside the sensor of 6 columns and 4 rows; give"),
        ({"y": np.array([3, 0, 4])}, r"event 2 is at x = 2, y = 4, outside"),
        ({"x": np.array([0, 5, -1])}, r"event 2 is at x = -1, y = 1, outside"),
        ({"x": np.array([0, 5, 2**16 + 2])}, r"event 2 is at x = 65538"),
        ({"t": np.array([-5, 7, 9])}, r"event 0 is at t = -5 us, before 0; subtract .*unsigned"),
        ({"t": np.array([2**31 - 1, 2**31, 2**31 + 1]).astype(np.int32)}, r"event 1 is at t = -2147483648 us"),
        ({"t": np.array([7, 900, 899])}, r"event 2 at t = 899 us comes after one at t = 900 us; sort .*in_order"),
        ({"t": np.array([1, 2**32 - 1, 3])}, r"32-bit counter overflowed there: add 2\*\*32 from that event on"),
        ({"t": np.array([1, 2**31 - 1, 3])}, r"31-bit counter overflowed"),
        ({"t": np.array([1, 2, 2**63], np.uint64)}, r"event 2 is at t = 9223372036854775808 us, not before 2\^53"),
        ({"t": np.array([1, 2**53, 2**62])}, r"event 1 is at t = 9007199254740992 us, .*; subtract t\[0\]"),
        ({"t": np.array([0.1, 0.2, 0.3])}, r"t must be integers, got float64; give whole microseconds: \(seconds"),
        ({"y": np.array([0.5, 1, 2])}, r"y must be integers, got float64; give whole pixels: numpy.floor\(y\)"),
        ({"p": np.array([-1, 1, 1])}, r"event 0 has polarity -1, .*give p > 0"),
        ({"p": np.array([1.0, 0, 1])}, r"p must be integers, got float64"),
        ({"p": np.array([1, 0])}, r"one entry an event each, got 3, 3, 3, 2"),
        ({"x": np.zeros((3, 1), int)}, r"x must be one number an event, \[n\], got \[3, 1\]"),
    ],
)
def test_bad_events_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Recording(**columns(**changes), sensor=SENSOR)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(0, 5), (5, 40_000)])
def test_a_sensor_has_pixels_that_16_bits_can_name(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="1 to 32767 rows and columns"):
        Sensor(*size)


def test_no_events_and_one_polarity_are_legal() -> None:
    none = Recording.empty(SENSOR)
    assert len(none) == 0
    assert none == Recording([], [], [], [], SENSOR)  # type: ignore[arg-type]
    assert none.between(0, 10) == none
    assert repr(none) == "Recording(0 events on 4x6)"
    assert Recording(**columns(p=np.ones(3, int)), sensor=SENSOR).p.all()


def test_the_hash_is_the_same_everywhere_and_sees_all_that_a_recording_is() -> None:
    first = Recording(**columns(), sensor=SENSOR)
    assert first.sha256 == "542c7e3df55249d987b5dc69d047cfc51063ebf6134880c6ba25290c52adb300"
    others = [
        Recording(**columns(**{name: array}), sensor=SENSOR)
        for name, array in {"x": [0, 5, 3], "y": [3, 0, 2], "t": [7, 8, 900], "p": [1, 0, 0]}.items()
    ]
    others += [Recording(**columns(), sensor=Sensor(4, 7)), Recording.empty(SENSOR)]
    swapped = {name: array[[1, 0, 2]] for name, array in columns().items()}
    others.append(Recording(**swapped, sensor=SENSOR))
    assert len({first.sha256, *(other.sha256 for other in others)}) == 8
    assert all(first != other for other in others)
    again = Recording(**columns(x=np.array([0, 5, 2], np.uint8)), sensor=SENSOR)
    assert again == first
    assert len({again, first}) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=30))
def test_putting_events_in_order_moves_none_past_one_of_its_own_time(events: list[tuple[int, int, int, bool]]) -> None:
    table = np.array(events, np.int64).reshape(-1, 4)
    recording = Recording.in_order(*table.T, SENSOR)
    expected = sorted(events, key=lambda event: event[2])
    found = zip(recording.x, recording.y, recording.t, recording.p, strict=True)
    assert [tuple(map(int, event)) for event in found] == [tuple(map(int, event)) for event in expected]


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), max_size=20), st.integers(0, 21), st.integers(0, 21))
def test_a_cut_holds_what_lies_in_its_time(times: list[int], start: int, end: int) -> None:
    times = sorted(times)
    zeros = np.zeros(len(times), int)
    recording = Recording(zeros, zeros, times, zeros, SENSOR)  # type: ignore[arg-type]
    assert recording.between(start, end).t.tolist() == [t for t in times if start <= t < end]
