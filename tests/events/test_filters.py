"""Filters: who stays, against the definition written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import Recording, Sensor
from events.filters import background_filter, mask_filter

SENSOR = Sensor(4, 5)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    n = draw(st.integers(0, 40))
    random = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    t = np.sort(random.randint(0, draw(st.sampled_from([1, 20, 1000])), n))
    return Recording(random.randint(0, 5, n), random.randint(0, 4, n), t, random.randint(0, 2, n), SENSOR)


def chosen(recording: Recording, stay: list[bool]) -> Recording:
    which = np.array(stay, bool)
    return Recording(recording.x[which], recording.y[which], recording.t[which], recording.p[which], recording.sensor)


@settings(deadline=None)
@given(recordings(), st.sampled_from([0, 3, 50, 10**6]), st.integers(1, 3))
def test_an_event_stays_if_a_neighbour_had_one_shortly_before(recording: Recording, window: int, radius: int) -> None:
    events = list(zip(recording.x.tolist(), recording.y.tolist(), recording.t.tolist(), strict=True))
    stay = [
        any(
            0 < max(abs(x - a), abs(y - b)) <= radius and t - since <= window for a, b, since in events[:number]
        )
        for number, (x, y, t) in enumerate(events)
    ]  # fmt: skip
    assert background_filter(recording, window, radius) == chosen(recording, stay)


@given(recordings(), st.integers(0, 6))
def test_pixels_with_too_many_events_are_silenced(recording: Recording, most: int) -> None:
    pixels = list(zip(recording.x.tolist(), recording.y.tolist(), strict=True))
    assert mask_filter(recording, most) == chosen(recording, [pixels.count(pixel) <= most for pixel in pixels])


def test_noise_goes_and_an_edge_stays() -> None:
    edge = Recording([0, 1, 2, 3, 4], [1, 1, 1, 1, 3], [10, 12, 14, 16, 5000], [1, 0, 1, 1, 1], SENSOR)
    assert background_filter(edge, 5).t.tolist() == [12, 14, 16]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r: background_filter(r, -1), "window must be at least 0"),
        (lambda r: background_filter(r, 5, 0), "radius must be at least 1"),
        (lambda r: mask_filter(r, -1), "most must be at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        call(Recording([0], [0], [0], [1], SENSOR))
