"""Frames: each event once, where the convention puts it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import Framing, Recording, Sensor

SENSOR = Sensor(4, 6)


def at_times(*times: int) -> Recording:
    """One event a time, each at another pixel, polarities in turn."""
    index = np.arange(len(times))
    return Recording(index % 6, index // 6 % 4, np.array(times, np.int64), index % 2, SENSOR)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    n = draw(st.integers(0, 60))
    random = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    longest = draw(st.sampled_from([1, 5, 1000, 10**9]))
    t = np.sort(random.randint(0, longest, n))
    return Recording(random.randint(0, 6, n), random.randint(0, 4, n), t, random.randint(0, 2, n), SENSOR)


framings = st.builds(
    Framing,
    st.integers(1, 12),
    st.sampled_from(["number", "time"]),
    st.sampled_from([4, 2, 1]),
    st.sampled_from([6, 3, 2]),
)


@settings(deadline=None)
@given(recordings(), framings)
def test_every_event_is_counted_once_where_it_was(recording: Recording, framing: Framing) -> None:
    frames, index = framing.frames(recording), framing.frame_of(recording)
    assert frames.shape == (framing.T, 2, framing.height, framing.width)
    assert frames.sum() == len(recording)
    slow = np.zeros(frames.shape, int)
    for frame, x, y, p in zip(index, recording.x, recording.y, recording.p, strict=True):
        slow[frame, p, y * framing.height // 4, x * framing.width // 6] += 1
    assert np.array_equal(frames, slow)
    assert (np.diff(index) >= 0).all()
    assert not len(index) or 0 <= index[0] <= index[-1] < framing.T


@settings(deadline=None)
@given(recordings(), framings)
def test_smaller_frames_are_sums_of_blocks(recording: Recording, framing: Framing) -> None:
    whole = Framing(framing.T, framing.by, 4, 6).frames(recording)
    rows, columns = 4 // framing.height, 6 // framing.width
    blocks = whole.reshape(framing.T, 2, framing.height, rows, framing.width, columns).sum((3, 5))
    assert np.array_equal(blocks, framing.frames(recording))


def test_by_number_the_last_frame_takes_the_rest() -> None:
    assert Framing(3, "number", 4, 6).frame_of(at_times(*range(11))).tolist() == [0] * 3 + [1] * 3 + [2] * 5


def test_by_time_the_last_frame_takes_the_rest_and_the_last_microsecond() -> None:
    # The span of 11 us gives frames of 3 us: [100, 103), [103, 106), and from 106 on.
    recording = at_times(100, 102, 103, 105, 106, 109, 110, 111)
    assert Framing(3, "time", 4, 6).frame_of(recording).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]


def test_by_time_a_pause_is_an_empty_frame() -> None:
    frames = Framing(3, "time", 4, 6).frames(at_times(0, 1, 29, 30))
    assert frames.sum((1, 2, 3)).tolist() == [2, 0, 2]


@pytest.mark.parametrize("by", ["number", "time"])
def test_no_events_are_frames_of_zeros(by: str) -> None:
    framing = Framing(5, by, 2, 3)
    assert not framing.frames(Recording.empty(SENSOR)).any()
    assert framing.frame_of(Recording.empty(SENSOR)).tolist() == []


def test_fewer_events_than_frames() -> None:
    assert Framing(5, "number", 4, 6).frame_of(at_times(3, 40, 50)).tolist() == [4, 4, 4]
    assert Framing(5, "time", 4, 6).frame_of(at_times(3, 40, 53)).tolist() == [0, 3, 4]
    # Shorter than a frame for each microsecond: one microsecond each, and nothing behind.
    assert Framing(5, "time", 4, 6).frame_of(at_times(3, 4, 5)).tolist() == [0, 1, 2]
    assert Framing(5, "time", 4, 6).frame_of(at_times(9)).tolist() == [0]


def test_off_is_channel_0_and_on_is_channel_1() -> None:
    recording = Recording(np.array([5]), np.array([2]), np.array([0]), np.array([1]), SENSOR)
    assert Framing(1, "number", 4, 6).frames(recording)[0, 1, 2, 5] == 1
    one_polarity = Recording(np.zeros(3, int), np.zeros(3, int), np.arange(3), np.zeros(3, int), SENSOR)
    assert Framing(1, "number", 4, 6).frames(one_polarity).sum((0, 2, 3)).tolist() == [3, 0]


def test_the_last_times_that_there_are_do_not_overflow() -> None:
    assert Framing(4, "time", 4, 6).frame_of(at_times(0, 2**52, 2**53 - 1)).tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "number", 4, 6), "T must be at least 1, got 0"),
        ((4, "events", 4, 6), "by must be number or time, got 'events'"),
        ((4, "time", 0, 6), "at least one row and column"),
    ],
)
def test_a_bad_framing_is_refused(arguments: tuple[int, str, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Framing(*arguments)


def test_frames_that_would_split_pixels_are_refused_with_those_that_do_not() -> None:
    with pytest.raises(ValueError, match=r"48x48 do not divide a sensor of 128x128 .* 128, 64, 32, 16, 8, 4, 2, 1$"):
        Framing(4, "number", 48, 48).frames(Recording.empty(Sensor(128, 128)))


@settings(max_examples=50, deadline=None)
@given(recordings(), st.integers(1, 6), st.sampled_from(["number", "time"]))
def test_frames_are_those_of_spikingjelly_where_it_has_any(
    spikingjelly: Any, recording: Recording, T: int, by: str
) -> None:
    events = {name: getattr(recording, name).astype(np.int64) for name in "txyp"}
    try:
        theirs = spikingjelly.utils.integrate_events_by_fixed_frames_number(events, by, T, 4, 6)
    except IndexError:
        assert by == "time", "it has frames of equal numbers for every recording"
        return
    assert np.array_equal(Framing(T, by, 4, 6).frames(recording), theirs)


@settings(deadline=None)
@given(recordings(), framings)
def test_borders_are_when_frames_begin_and_end(recording: Recording, framing: Framing) -> None:
    borders = framing.borders(recording)
    assert borders.shape == (framing.T + 1,) and (np.diff(borders) >= 0).all()
    frame = framing.frame_of(recording)
    assert (borders[frame] <= recording.t).all()
    # By number the events of one microsecond may be in two frames.
    late = recording.t >= borders[frame + 1]
    assert not late.any() or framing.by == "number"
    assert (recording.t[late] == borders[frame + 1][late]).all()
    if len(recording):
        assert (borders[0], borders[-1]) == (recording.t[0], recording.t[-1] + 1)


def test_borders_of_a_pause() -> None:
    recording = at_times(100, 101, 102, 103, 901)
    assert Framing(4, "time", 4, 6).borders(recording).tolist() == [100, 300, 500, 700, 902]
    assert Framing(2, "number", 4, 6).borders(recording).tolist() == [100, 102, 902]
    assert Framing(8, "number", 4, 6).borders(at_times(5, 9)).tolist() == [5] * 8 + [10]
    assert Framing(4, "time", 4, 6).borders(at_times(5, 6)).tolist() == [5, 6, 7, 7, 7]
