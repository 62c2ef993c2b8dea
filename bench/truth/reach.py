"""Which patterns of first-layer trains the images of a box can produce.

Nothing here rests on a solver's tolerance. A pattern is called unreachable only with a certificate: a
direction v in the space of currents such that v . c is smaller for every current of the pattern than for every
image of the box. The linear program merely proposes v; the two sides are then computed here. The
intervals of the pattern are taken closed and `SLACK` wider on both sides, far more than rounding can do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from bench.truth.bounds import SLACK, Patterns
from bench.truth.network import Array, Network


class Reach:
    """The currents of one box of images.

    Args:
        network: the network.
        low, high: the box, float64 [P] each.

    Attributes:
        reachable: first and last train of each neuron that the box may produce, [H1, 2].
        edges: lower and upper end of the current of each neuron and train, [H1, K + 1] each; `OPEN` comes last.
    """

    def __init__(self, network: Network, low: Array, high: Array) -> None:
        self.network, self.low, self.high = network, low, high
        weight, bias = network.first
        middle, self.radius = (low + high) / 2, (high - low) / 2
        centre, spread = weight @ middle + bias, np.abs(weight) @ self.radius
        self.centre, self.spread = centre, spread
        least, most = centre - spread - SLACK, centre + spread + SLACK
        edges = network.trains.edges
        first = np.searchsorted(edges[1:-1] + SLACK, least, side="left")
        last = np.searchsorted(edges[1:-1] - SLACK, most, side="right")
        self.reachable: NDArray[np.int64] = np.stack([first, last], 1)
        lower = np.maximum(edges[None, :-1] - SLACK, least[:, None])
        upper = np.minimum(edges[None, 1:] + SLACK, most[:, None])
        self.edges = np.column_stack([lower, least]), np.column_stack([upper, most])
        self.cuts: list[Cut] = []

    def surviving(self, patterns: Patterns) -> Patterns:
        """The patterns [B, H1] that no certificate found so far excludes."""
        for cut in self.cuts:
            if not len(patterns):
                break
            patterns = patterns[~cut.excludes(patterns)]
        return patterns

    def probe(self, pattern: Patterns) -> Array | None:
        """An image of the box that comes closest to producing a pattern [H1], or None if it is unreachable.

        An image is no proof of anything until the network has been run on it. If the pattern is
        unreachable the certificate is kept in `cuts`, where it excludes others too.
        """
        rows = np.arange(len(pattern))
        lower, upper = self.edges[0][rows, pattern], self.edges[1][rows, pattern]
        image, direction = _closest(self.network.first[0], self.centre, self.spread, self.radius, lower, upper)
        cut = self._cut(direction)
        if cut is not None and cut.excludes(pattern[None])[0]:
            self.cuts.append(cut)
            return None
        return np.clip((self.low + self.high) / 2 + image * self.radius, self.low, self.high)

    def _cut(self, direction: Array) -> "Cut | None":
        if not direction.any():
            return None
        weight = self.network.first[0]
        least = float(direction @ self.centre - np.abs(direction @ weight) @ self.radius)
        most = np.where(direction[:, None] > 0, direction[:, None] * self.edges[1], direction[:, None] * self.edges[0])
        used = np.flatnonzero(direction)
        return Cut(used, most[used], least)


@dataclass(frozen=True)
class Cut:
    """A certificate: for every image of the box v . c >= `least`.

    Attributes:
        neurons: where v is not zero.
        most: the largest v_i c_i that each of those neurons has with each train, [., K + 1].
        least: the bound.
    """

    neurons: NDArray[np.int64]
    most: Array
    least: float

    def excludes(self, patterns: Patterns) -> NDArray[np.bool_]:
        """Which patterns [B, H1] cannot have such a v . c."""
        total = np.zeros(len(patterns))
        for neuron, most in zip(self.neurons, self.most, strict=True):
            total += most[patterns[:, neuron]]
        return total < self.least


def _closest(
    weight: Array, centre: Array, spread: Array, radius: Array, lower: Array, upper: Array
) -> tuple[Array, Array]:
    """The point z in [-1, 1]^P of the box with the least worst violation of lower <= c(z) <= upper, and its dual.

    Violations are counted in units of each neuron's spread. The dual is given as a direction in current space.
    """
    scale = np.where(spread > 0, spread, 1.0)
    rows = weight * radius / scale[:, None]
    above, below = (upper - centre) / scale, (lower - centre) / scale
    count, pixels = rows.shape
    minus = -np.ones((count, 1))
    # Variables: z and the violation t; rows: c - upper <= t, lower - c <= t.
    result = linprog(
        np.append(np.zeros(pixels), 1.0),
        A_ub=np.block([[rows, minus], [-rows, minus]]),
        b_ub=np.concatenate([above, -below]),
        bounds=np.array([*[(-1.0, 1.0)] * pixels, (None, None)], dtype=float),
        method="highs",
    )
    if result.x is None:
        return np.zeros(pixels), np.zeros(count)
    dual = -np.asarray(result.ineqlin.marginals).clip(max=0)
    return np.asarray(result.x[:pixels]), (dual[:count] - dual[count:]) / scale
