"""The simulated camera: against a slow one, and what must hold of any."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import Recording, Sensor
from events.sensor import EventCamera

SENSOR = Sensor(5, 6)


def pictures(n: int, seed: int = 0, sensor: Sensor = SENSOR) -> np.ndarray:
    return np.random.RandomState(seed).random_sample((n, sensor.height, sensor.width))


def slow(camera: EventCamera, image: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(t, y, x, p) of one image without noise: one pixel after the other, one crossing after the other."""

    def light(row: int, column: int) -> float:
        inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
        value = math.log((image[row, column] if inside else 0) + camera.dark)
        return round(value * 2**20) / 2**20

    def seen(row: float, column: float) -> float:
        top, left = math.floor(row), math.floor(column)
        a, b = row - top, column - left
        upper = light(top, left) * (1 - b) + light(top, left + 1) * b
        lower = light(top + 1, left) * (1 - b) + light(top + 1, left + 1) * b
        return upper * (1 - a) + lower * a

    samples = [(0, 0.0, 0.0)]
    corners = [(0, 0), (0.5, 1), (1, 0), (0, 0)]
    for number in range(3):
        (x0, y0), (x1, y1) = corners[number], corners[number + 1]
        for step in range(1, camera.steps + 1):
            s = step / camera.steps
            share = 10 * s**3 - 15 * s**4 + 6 * s**5
            time = number * camera.saccade + step * camera.saccade // camera.steps
            samples.append(
                (time, camera.amplitude * (x0 + (x1 - x0) * share), camera.amplitude * (y0 + (y1 - y0) * share))
            )
    events = []
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            before = reference = seen(y, x)
            last = -math.inf
            for (start, _, _), (end, dx, dy) in pairwise(samples):
                now = seen(y - dy, x - dx)
                while True:
                    p = int(now > reference)
                    threshold = camera._thresholds[1 - p, y, x]
                    level = reference + threshold * (1 if p else -1)
                    if (now < level) if p else (now > level):
                        break
                    reference = level
                    t = start + math.floor((level - before) / (now - before) * (end - 1 - start))
                    if t - last >= camera.refractory:
                        events.append((t, y, x, p))
                        last = t
                before = now
    return sorted(events)


def events_of(recording: Recording) -> list[tuple[int, int, int, int]]:
    columns = zip(recording.t, recording.y, recording.x, recording.p, strict=True)
    return [(int(t), int(y), int(x), int(p)) for t, y, x, p in columns]


@pytest.mark.parametrize(
    "options",
    [{}, {"amplitude": 3.7, "steps": 7}, {"threshold": 0.05, "refractory": 5000}, {"saccade": 30, "steps": 30}],
)
def test_it_records_what_a_slow_simulation_does(options: dict[str, Any]) -> None:
    camera = EventCamera(SENSOR, noise=0, **options)
    images = pictures(3)
    for image, recording in zip(images, camera.record(images), strict=True):
        expected = slow(camera, image)
        assert len(expected) > 20
        assert sorted(events_of(recording)) == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.1), st.floats(0, 4))
def test_the_image_comes_back_so_the_events_of_a_pixel_cancel(seed: int, mismatch: float, amplitude: float) -> None:
    camera = EventCamera(SENSOR, mismatch=mismatch, refractory=0, noise=0, amplitude=amplitude, seed=seed)
    (recording,) = camera.record(pictures(1, seed))
    counts = np.zeros((2, *pictures(1).shape[1:]))
    np.add.at(counts, (1 - recording.p, recording.y, recording.x), 1)
    on, off = counts * camera._thresholds
    assert (np.abs(on - off) <= camera._thresholds.max(0) + 1e-9).all()


def test_an_image_is_recorded_alike_whatever_else_is_recorded() -> None:
    camera = EventCamera(SENSOR, noise=30)
    images = pictures(70)
    together = camera.record(images)
    assert all(camera.record(images[k : k + 1], first=k) == [together[k]] for k in (0, 1, 63, 64, 69))
    assert camera.record(images[:1], first=1) != [together[0]], "another number, another noise"
    quiet = EventCamera(SENSOR, noise=0)
    assert quiet.record(images[:1], first=1) == quiet.record(images[:1])
    assert EventCamera(SENSOR, noise=0, seed=1).record(images[:1]) != quiet.record(images[:1]), "another camera"
    assert camera.record(images[:0]) == []


def test_a_light_that_moves_right_is_seen_to_do_so() -> None:
    image = np.zeros((1, 1, 9))
    image[0, 0, 4] = 1
    (recording,) = EventCamera(Sensor(1, 9), noise=0, mismatch=0, amplitude=2, steps=50).record(image)
    first = recording.between(0, 100_000)
    # Half the amplitude to the right: the pixel there brightens, the one left behind darkens, the others see nothing.
    assert set(zip(first.x.tolist(), first.p.tolist(), strict=True)) <= {(4, 0), (5, 0), (5, 1)}


def test_nothing_to_see_is_nothing_recorded_but_noise() -> None:
    flat = np.zeros((200, 8, 8))
    sensor = Sensor(8, 8)
    assert EventCamera(sensor, noise=0).record(flat[:2]) == [Recording.empty(sensor)] * 2
    recordings = EventCamera(sensor, noise=5).record(flat)
    found, expected = sum(map(len, recordings)), 5 * 0.3 * 64 * 200
    assert abs(found - expected) < 4 * expected**0.5
    assert abs(np.mean([p for recording in recordings for p in recording.p]) - 0.5) < 0.02
    assert max(int(recording.t[-1]) for recording in recordings) < 300_000


def test_a_mute_pixel_sends_nothing() -> None:
    images = pictures(5)
    quick = EventCamera(SENSOR, noise=0, threshold=0.05, refractory=0).record(images)
    slower = EventCamera(SENSOR, noise=0, threshold=0.05, refractory=7000).record(images)
    for before, recording in zip(quick, slower, strict=True):
        assert len(recording) < len(before)
        for pixel in range(30):
            mine = recording.t[recording.y * 6 + recording.x == pixel]
            assert (np.diff(mine) >= 7000).all()


def test_thresholds_are_a_pixel_s_own() -> None:
    drawn = EventCamera(Sensor(100, 100), threshold=0.2, mismatch=0.05)._thresholds
    assert drawn.mean() == pytest.approx(0.2, abs=0.002)
    assert drawn.std() == pytest.approx(0.05, abs=0.002)
    assert drawn.min() >= 0.01
    assert abs(np.corrcoef(drawn[0].ravel(), drawn[1].ravel())[0, 1]) < 0.05, "ON and OFF apart"
    assert (EventCamera(SENSOR, mismatch=0)._thresholds == 0.25).all()


def test_the_recordings_of_a_seed_never_change() -> None:
    (recording,) = EventCamera(SENSOR, seed=7).record(np.rint(pictures(1) * 16) / 16)
    assert recording.sha256 == "94e0d6194bd696f977205dd3354ee07ea14d863dfc22d7900320b9f0fa12e1cd"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.001}, "threshold must be at least 0.01, got 0.001"),
        ({"mismatch": -1}, "mismatch must be at least 0"),
        ({"refractory": -1}, "refractory must be"),
        ({"noise": -0.5}, "noise must be"),
        ({"dark": 0}, "dark must be more than 0"),
        ({"amplitude": math.nan}, r"amplitude must be in \[0, 1000\], got nan"),
        ({"steps": 0}, "steps must be"),
        ({"saccade": 10}, "saccade must be at least a microsecond a step"),
        ({"seed": -1}, r"seed must be in \[0, 2\^32\)"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EventCamera(SENSOR, **options)


def test_images_of_another_size_or_range_are_refused() -> None:
    camera = EventCamera(SENSOR)
    with pytest.raises(ValueError, match=r"needs images of \[N, 5, 6\], got \[1, 6, 5\]"):
        camera.record(np.zeros((1, 6, 5)))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got \[0, 255\]"):
        camera.record(np.full((1, 5, 6), 255.0) * np.eye(5, 6))
    with pytest.raises(ValueError, match="must lie in"):
        camera.record(np.full((1, 5, 6), np.nan))
