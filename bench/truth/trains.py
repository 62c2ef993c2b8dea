"""The spike train of a neuron under constant current, as a step function of that current."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# Lower end (None is -inf), upper end (None is inf), the train so far, and the state U = a c + r after it.
_Piece = tuple[Fraction | None, Fraction | None, tuple[int, ...], Fraction, Fraction]


@dataclass(frozen=True)
class Trains:
    """Train k is fired exactly for currents in the half-open interval [edges[k], edges[k + 1]).

    Attributes:
        edges: K + 1 increasing numbers, the first -inf and the last inf; between them the exact breakpoints,
            rounded to float64.
        exact: the same breakpoints without the infinities, as fractions [K - 1].
        spikes: float64 [K, T] of zeros and ones.
    """

    edges: NDArray[np.float64]
    exact: tuple[Fraction, ...]
    spikes: NDArray[np.float64]

    def index(self, current: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which train each current [*] fires, as numbers in [0, K)."""
        return np.searchsorted(self.edges[1:-1], current, side="right")


def trains(T: int, decay: float, v_threshold: float, v_reset: float) -> Trains:
    """Every train that a LIF neuron with hard reset can fire under a constant current.

    Under a given history the potential at step t is a c + r with a >= 1, so the neuron fires at t exactly for
    c >= (v_threshold - r) / a: each step cuts the interval of one history in at most two.

    Args:
        T: time steps.
        decay, v_threshold, v_reset: as in `models.LIF`; taken as the exact values of these floats.

    Returns:
        the trains in order of rising current; neighbours differ.
    """
    leak, threshold, reset = Fraction(decay), Fraction(v_threshold), Fraction(v_reset)
    pieces: list[_Piece] = [(None, None, (), Fraction(0), Fraction(0))]
    for _ in range(T):
        following: list[_Piece] = []
        for low, high, train, a, r in pieces:
            a, r = leak * a + 1, leak * r
            cut = (threshold - r) / a
            if low is None or cut > low:
                following.append((low, cut if high is None else min(cut, high), (*train, 0), a, r))
            if high is None or cut < high:
                following.append((cut if low is None else max(cut, low), high, (*train, 1), Fraction(0), reset))
        pieces = following
    exact = tuple(low for low, *_ in pieces if low is not None)
    edges = np.array([-np.inf, *(float(edge) for edge in exact), np.inf])
    return Trains(edges, exact, np.array([piece[2] for piece in pieces], dtype=np.float64))
