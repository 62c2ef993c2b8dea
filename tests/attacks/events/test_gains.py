"""First-order gains are exact on a linear loss, borders of frames included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import edited, every_addition, recording

from attacks.events.edits import Edits
from attacks.events.gains import addition_gains, move_gains, move_times, removal_gains
from attacks.events.sketch import nearest_free
from events import Framing, Sensor

CASES = given(
    n=st.integers(1, 25), T=st.integers(1, 6), by=st.sampled_from(["number", "time"]), seed=st.integers(0, 999)
)
SENSOR = Sensor(2, 4)


def slope_of(framing: Framing, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(framing.T, 2, framing.height, framing.width))


@settings(max_examples=60, deadline=None)
@CASES
def test_removals(n: int, T: int, by: str, seed: int) -> None:
    original, framing = recording(n, seed, SENSOR, 40), Framing(T, by, 1, 2)
    slope = slope_of(framing, seed)
    value = (slope * framing.frames(original)).sum()
    truth = [(slope * framing.frames(edited(original, [event]))).sum() - value for event in range(n)]
    assert np.allclose(removal_gains(original, framing, slope), truth)


@settings(max_examples=40, deadline=None)
@CASES
def test_additions(n: int, T: int, by: str, seed: int) -> None:
    original, framing = recording(n, seed, SENSOR, 30), Framing(T, by, 1, 2)
    slope, last = slope_of(framing, seed), int(original.t[-1])
    gains = addition_gains(original, framing, slope).reshape(slope.shape)
    times = framing.times_for_one_more(original, last)
    value = (slope * framing.frames(original)).sum()
    frames_hit = set()
    for x, y, p, t in every_addition(original, 0, int(original.t[0]) if by == "time" else 0):
        (frame,) = [k for k, (low, high) in enumerate(times) if low <= t <= high]
        frames_hit.add(frame)
        counts = framing.frames(edited(original, new=[(x, y, p, t)]))
        assert gains[frame, p, 0, x // 2] == pytest.approx((slope * counts).sum() - value)
    assert frames_hit == {k for k, (low, high) in enumerate(times) if low <= high}


@settings(max_examples=40, deadline=None)
@CASES
def test_moves(n: int, T: int, by: str, seed: int) -> None:
    original, framing = recording(n, seed, SENSOR, 60), Framing(T, by, 1, 2)
    slope, last = slope_of(framing, seed), int(original.t[-1])
    gains, windows = move_gains(original, framing, slope), move_times(original, framing, last)
    value, now = (slope * framing.frames(original)).sum(), framing.frame_of(original)
    for event, frame in np.argwhere(gains > -np.inf):
        low, high = windows[0 if frame > now[event] else 1][frame]
        for t in {low, (low + high) // 2, high} if low <= high else ():
            edits = Edits.none(original)
            edits.t[event] = t
            counts = framing.frames(edits.apply(original))
            assert gains[event, frame] == pytest.approx((slope * counts).sum() - value)


@given(st.lists(st.integers(0, 30)), st.integers(0, 30), st.integers(0, 30), st.integers(0, 6), st.integers(0, 30))
def test_the_nearest_moment_that_is_free(taken: list[int], low: int, high: int, gap: int, wish: int) -> None:
    wish = min(max(wish, low), high)
    free = [t for t in range(low, high + 1) if all(abs(t - other) >= gap for other in taken)]
    found = nearest_free(wish, low, high, np.array(sorted(taken), np.int64), gap)
    if not free:
        assert found is None
    else:
        assert found in free
        assert found is not None
        assert abs(found - wish) == min(abs(t - wish) for t in free)
