"""What the tests of attacks on events share: small recordings, a network on their frames, every attack."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.events.edits import Edits
from attacks.events.greedy import greedy
from attacks.events.lens import Lens
from attacks.events.retime import retime
from attacks.events.sda import sda
from attacks.events.spikefool import spikefool
from attacks.events.threat import EventThreat
from attacks.events.yao import yao
from events import Framing, Recording, Sensor
from models.random import CounterRNG

ATTACKS: dict[str, Any] = {"greedy": greedy, "retime": retime, "sda": sda, "spikefool": spikefool, "yao": yao}
FREE = EventThreat(Fraction(1, 5), max_shift=20)


def recording(n: int, seed: int, sensor: Sensor, span: int) -> Recording:
    draw = np.random.default_rng(seed)
    t = np.sort(draw.integers(0, span, n))
    x, y = (draw.integers(0, size, n) for size in (sensor.width, sensor.height))
    return Recording(x, y, t, draw.integers(0, 2, n), sensor)


def lens(by: str = "number", T: int = 3, side: int = 2, sensor: Sensor | None = None) -> Lens:
    sensor = sensor or Sensor(2 * side, 2 * side)
    pool = [(recording(25, 100 + seed, sensor, 90), seed % 3) for seed in range(9)]
    return Lens(Framing(T, by, side, side), 2, torch.device("cpu"), pool, [label for _, label in pool])


class Frames(nn.Module):
    """A network on frames of `lens()` in float64, so that the size of a batch does not change what it says."""

    def __init__(self, seed: int = 0, *, T: int = 3, side: int = 2, hidden: int = 0, classes: int = 3) -> None:
        super().__init__()
        draw, places = torch.Generator().manual_seed(seed), T * 2 * side * side
        self.hidden = nn.Parameter(torch.randn(places, hidden, generator=draw).double()) if hidden else None
        self.weight = nn.Parameter(torch.randn(hidden or places, classes, generator=draw).double())
        self.bias = nn.Parameter(torch.zeros(classes, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        x = x.double().flatten(1)
        if self.hidden is not None:
            x = ((x - 1) @ self.hidden / 3).tanh()
        return x @ self.weight + self.bias


def rng(samples: int | Sequence[int]) -> CounterRNG:
    return CounterRNG(7, torch.arange(samples) if isinstance(samples, int) else torch.tensor(samples))


def edited(
    original: Recording, removed: Sequence[int] = (), new: Sequence[tuple[int, int, int, int]] = ()
) -> Recording:
    """Without some events, and with new ones (x, y, p, t)."""
    gone: NDArray[np.bool_] = np.isin(np.arange(len(original)), removed)
    x, y, p, t = np.array(new, np.int64).reshape(-1, 4).T
    return Edits(gone, original.t.copy(), x, y, p, t).apply(original)


def every_addition(original: Recording, gap: int, first: int = 0) -> list[tuple[int, int, int, int]]:
    """All events that may be added, one at a time, from a microsecond on."""
    taken = {(x, y): set() for y in range(original.sensor.height) for x in range(original.sensor.width)}
    for x, y, t in zip(original.x.tolist(), original.y.tolist(), original.t.tolist(), strict=True):
        taken[x, y] |= set(range(t - gap + 1, t + gap))
    times = range(first, int(original.t[-1]) + 1)
    return [(x, y, p, t) for (x, y), not_then in taken.items() for p in (0, 1) for t in times if t not in not_then]
