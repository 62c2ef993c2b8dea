"""Seconds for each pass, call and chunk, from runs of which only the sum is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.costs.passes import Work

CALL, CHUNK_SECONDS = 5e-4, 5e-3
"""Seconds of a call and of a chunk that are not for the images in it, until measurements say otherwise."""
_TRUST = 0.02
_ROUNDS, _OUTLIER = 10, 0.3


@dataclass(frozen=True)
class Speed:
    """Seconds for each forward, backward, call and chunk of one network on one machine."""

    forward: float
    backward: float
    call: float = CALL
    chunk: float = CHUNK_SECONDS

    def seconds(self, work: Work) -> float:
        """What some work takes."""
        forwards, backwards, calls, chunks = work
        return forwards * self.forward + backwards * self.backward + calls * self.call + chunks * self.chunk

    def scaled(self, images: float) -> "Speed":
        """Where the work on an image takes so many times as long, and calling the network does not."""
        return Speed(self.forward * images, self.backward * images, self.call, self.chunk)


def fitted(works: Sequence[Work], seconds: Sequence[float], weights: Sequence[float] | None = None) -> Speed:
    """Non-negative speeds that explain what several runs took.

    Relative errors are minimised, those of outliers counted less. What the runs leave open (one run leaves much) is as
    close as they allow to: a backward is two forwards, a call and a chunk are `CALL` and `CHUNK_SECONDS`.

    Args:
        works: what was done, at least one.
        seconds: that it took, positive.
        weights: of each; 1 if not given.
    """
    x = np.array([work.vector() for work in works])
    t = np.array(seconds, dtype=np.float64)
    trust = np.ones(len(t)) if weights is None else np.array(weights, dtype=np.float64)
    passes = np.maximum(x[:, 0] + 2 * x[:, 1], 1.0)
    rest = np.maximum(t - x[:, 2] * CALL - x[:, 3] * CHUNK_SECONDS, 0.3 * t)
    unit = float(np.median(rest / passes))
    usual = np.array([unit, 2 * unit, CALL, CHUNK_SECONDS])
    shares, huber = x * usual / t[:, None], np.ones(len(t))
    # Multiples of what is usual: 1 everywhere where nothing is known.
    found = np.ones(4)
    for _ in range(_ROUNDS):
        found = _least_squares(shares, trust * huber, found)
        errors = np.abs(shares @ found - 1)
        huber = np.minimum(1.0, _OUTLIER / np.maximum(errors, 1e-12))
    return Speed(*(float(value) for value in usual * found))


def _least_squares(
    shares: NDArray[np.float64], weights: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Non-negative least squares of shares @ p = 1 with a pull of p towards 1, by coordinate descent."""
    gram = shares.T @ (weights[:, None] * shares) + _TRUST * np.eye(4)
    target = shares.T @ weights + _TRUST
    found = start.copy()
    for _ in range(500):
        before = found.copy()
        for j in range(4):
            found[j] = max(0.0, found[j] + (target[j] - gram[j] @ found) / gram[j, j])
        if np.abs(found - before).max() < 1e-10:
            break
    return found
