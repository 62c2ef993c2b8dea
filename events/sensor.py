"""A simulated event camera that looks at a still image.

The model is that of the event simulators ESIM (Rebecq et al., CoRL 2018) and v2e (Hu et al., CVPRW 2021), the movement
that of N-MNIST (Orchard et al., Frontiers in Neuroscience 2015):

- The image moves along a closed path of three straight saccades (right and down, right and up, back). Each takes
  `saccade` microseconds, and the share of it covered after the share s of its time is 10 s^3 - 15 s^4 + 6 s^5, the
  smoothest start and stop.
- A pixel sees L(t), the logarithm of (intensity + `dark`), interpolated bilinearly between the image's pixels at the
  place it looks at. Outside the image it is dark.
- It holds a reference R, at first L(0). Where L(t) reaches R + theta_on, it sends an ON event and R grows by theta_on;
  where L(t) reaches R - theta_off, an OFF event, and R falls by theta_off. L is sampled `steps` times a saccade, and
  between samples a crossing's time is interpolated linearly (ESIM).
- theta_on and theta_off of every pixel are drawn once from a normal distribution around `threshold` with standard
  deviation `mismatch`, at least 0.01 (v2e): they belong to the camera and are the same for every image.
- Within `refractory` microseconds after a pixel's event a crossing moves R but sends nothing (ESIM).
- Each pixel sends events without a cause, of either polarity alike, at `noise` per second. They neither move R nor
  know the refractory period.

What it leaves out: the photoreceptor's finite bandwidth, leak events, hot pixels, and the delays of reading out.

Random numbers come from numpy's `RandomState`, whose streams numpy's compatibility policy freezes, up to the rounding
of `standard_normal`; those of `Generator` are not frozen. Everything else is sums, products and quotients, which every
processor rounds alike, and where a library's logarithm comes in the result is rounded to 2^-20. So a seed gives the
same recordings everywhere.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from events.recording import Recording, Sensor

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_PATH = ((0.0, 0.0), (0.5, 1.0), (1.0, 0.0), (0.0, 0.0))
"""Corners of the path, in units of the amplitude: x to the right, y down."""

_BATCH = 64
_GRID = 2.0**20
_LEAST_THRESHOLD = 0.01


@dataclass(frozen=True)
class EventCamera:
    """A simulated camera; see the module for the equations.

    Attributes:
        sensor: its pixels, one for each of the image's.
        threshold: mean change of log intensity that makes an event, at least 0.01.
        mismatch: standard deviation of the thresholds of its pixels.
        refractory: microseconds in which a pixel is mute after an event.
        noise: events without a cause, per second and pixel; at most one a step.
        dark: intensity added before the logarithm is taken, more than 0.
        amplitude: how far the image moves, in pixels.
        saccade: microseconds of each of the three movements.
        steps: samples of a saccade.
        seed: selects the thresholds of its pixels and the noise.

    Raises:
        ValueError: a value out of range.
    """

    sensor: Sensor
    threshold: float = 0.25
    mismatch: float = 0.03
    refractory: int = 1000
    noise: float = 1.0
    dark: float = 0.1
    amplitude: float = 2.0
    saccade: int = 100_000
    steps: int = 24
    seed: int = 0
    _thresholds: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limits = (
            ("threshold", self.threshold >= _LEAST_THRESHOLD, f"at least {_LEAST_THRESHOLD}"),
            ("mismatch", self.mismatch >= 0, "at least 0"),
            ("refractory", self.refractory >= 0, "at least 0"),
            ("noise", self.noise >= 0, "at least 0"),
            ("dark", self.dark > 0, "more than 0"),
            ("amplitude", 0 <= self.amplitude <= 1000, "in [0, 1000]"),
            ("steps", self.steps >= 1, "at least 1"),
            ("saccade", self.saccade >= self.steps, "at least a microsecond a step"),
            ("seed", 0 <= self.seed < 2**32, "in [0, 2^32)"),
        )
        for name, fine, range_ in limits:
            if not fine:
                raise ValueError(f"{name} must be {range_}, got {getattr(self, name)}")
        size = (2, self.sensor.height, self.sensor.width)
        drawn = np.random.RandomState(self.seed).standard_normal(size) * self.mismatch + self.threshold
        thresholds = np.maximum(np.rint(drawn * _GRID) / _GRID, _LEAST_THRESHOLD)
        object.__setattr__(self, "_thresholds", thresholds)

    @property
    def duration(self) -> int:
        """Microseconds of a recording."""
        return (len(_PATH) - 1) * self.saccade

    def record(self, images: Floats, first: int = 0) -> list[Recording]:
        """What the camera records of each image.

        Args:
            images: intensities in [0, 1], [N, height, width], of the sensor's size.
            first: the number of the first image; an image's noise depends on the seed and its number.

        Returns:
            N recordings, each with times in [0, duration).

        Raises:
            ValueError: images of another size or range.
        """
        size = (self.sensor.height, self.sensor.width)
        if images.ndim != 3 or images.shape[1:] != size:
            raise ValueError(f"this camera needs images of [N, {size[0]}, {size[1]}], got {list(images.shape)}")
        if images.size and not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(f"intensities must lie in [0, 1], got [{images.min():g}, {images.max():g}]")
        found = []
        for start in range(0, len(images), _BATCH):
            # A few images at a time stay in the processor's cache.
            found += self._record(np.asarray(images[start : start + _BATCH], np.float64), first + start)
        return found

    def _record(self, images: Floats, first: int) -> list[Recording]:
        n, (height, width) = len(images), images.shape[1:]
        pieces = [_Piece.empty(), *self._crossings(images)]
        if self.noise:
            pieces += [self._noise(first + number, number * height * width) for number in range(n)]
        place, t, p = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("place", "t", "p"))
        number = place // (height * width)
        order = np.argsort(number * self.duration + t, kind="stable")
        place, t, p = place[order], t[order], p[order]
        ends = np.searchsorted(number[order], np.arange(n + 1))
        y, x = place // width % height, place % width
        return [Recording(x[a:b], y[a:b], t[a:b], p[a:b], self.sensor) for a, b in pairwise(ends)]

    def _crossings(self, images: Floats) -> Iterator["_Piece"]:
        """The events of each step."""
        seen = _Scene(images, self.dark, math.ceil(self.amplitude))
        on, off = (np.broadcast_to(half, images.shape).reshape(-1) for half in self._thresholds)
        before = seen.at(0.0, 0.0)
        reference, last = before.copy(), np.full(before.shape, -self.refractory, np.int64)
        for start, end, x, y in self._path():
            now = seen.at(x, y)
            change = now - reference
            up = change > 0
            threshold = np.where(up, on, off)
            # Rounding may leave a pixel that stands still a hair beyond its threshold; it sends nothing.
            count = np.where(now == before, 0, np.floor(np.abs(change) / threshold)).astype(np.int64)
            signed = np.where(up, threshold, -threshold)
            for j in range(1, int(count.max(initial=0)) + 1):
                (place,) = np.nonzero(count >= j)
                level = reference[place] + j * signed[place]
                share = np.clip((level - before[place]) / (now[place] - before[place]), 0, 1)
                t = start + np.floor(share * (end - 1 - start)).astype(np.int64)
                ready = t - last[place] >= self.refractory
                place, t = place[ready], t[ready]
                last[place] = t
                yield _Piece(place, t, up[place].astype(np.int64))
            reference += count * signed
            before = now

    def _path(self) -> Iterator[tuple[int, int, float, float]]:
        """For each step its start and end in microseconds, and where the image is at its end."""
        for corner, ((x0, y0), (x1, y1)) in enumerate(pairwise(_PATH)):
            for step in range(self.steps):
                begin, end = (corner * self.saccade + k * self.saccade // self.steps for k in (step, step + 1))
                s = (step + 1) / self.steps
                share = s * s * s * (10 + s * (6 * s - 15))
                yield begin, end, self.amplitude * (x0 + (x1 - x0) * share), self.amplitude * (y0 + (y1 - y0) * share)

    def _noise(self, number: int, offset: int) -> "_Piece":
        """Events without a cause of one image: a coin for each pixel and step, then a time and a polarity."""
        random = np.random.RandomState([self.seed, number & 0xFFFFFFFF, number >> 32])
        steps = (len(_PATH) - 1) * self.steps
        chance = self.noise * (self.duration / steps) / 1e6
        coins = random.random_sample((steps, self.sensor.height * self.sensor.width))
        step, place = np.nonzero(coins < chance)
        when, sign = random.random_sample((2, len(step)))
        t = np.floor((step + when) * (self.duration / steps)).astype(np.int64)
        return _Piece(place + offset, np.minimum(t, self.duration - 1), (sign < 0.5).astype(np.int64))


@dataclass(frozen=True)
class _Piece:
    """Some events: where in a batch of images [N, H, W], counted through; when; of which polarity."""

    place: Whole
    t: Whole
    p: Whole

    @classmethod
    def empty(cls) -> "_Piece":
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing)


class _Scene:
    """The logarithm of images that move."""

    def __init__(self, images: Floats, dark: float, margin: int) -> None:
        self.margin = margin + 1
        self.shape = images.shape
        light = np.pad(images, ((0, 0), (self.margin,) * 2, (self.margin,) * 2)) + dark
        self.log = np.rint(np.log(light) * _GRID) / _GRID

    def at(self, x: float, y: float) -> Floats:
        """What the pixels see when the image has moved by (x, y) pixels, at most the margin: [N * H * W]."""
        # The image to the right by x is the pixel looking to the left by x.
        row, column = self.margin - y, self.margin - x
        top, left = math.floor(row), math.floor(column)
        down, right = row - top, column - left
        _, height, width = self.shape
        rows = self.log[:, top : top + height + 1]
        upper, lower = rows[:, :-1], rows[:, 1:]
        between = upper + down * (lower - upper)
        between = between[:, :, left : left + width + 1]
        seen: Floats = between[:, :, :-1] + right * (between[:, :, 1:] - between[:, :, :-1])
        return seen.reshape(-1)
