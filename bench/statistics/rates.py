"""Rates and their intervals."""

import math
from typing import NamedTuple

Z95 = 1.959963984540054


class Rate(NamedTuple):
    """A share with its 95% interval. `hits` may be fractional: an expectation over scoring draws."""

    hits: float
    n: int
    value: float
    low: float
    high: float


def wilson(hits: float, n: int, z: float = Z95) -> Rate:
    """A binomial share with its Wilson score interval (Wilson 1927).

    For a mean over draws of a stochastic model `hits` is the sum of per-sample
    means; the interval is then conservative, since averaging can only shrink the
    variance that the binomial assumes.

    Args:
        hits: number of successes, in [0, n].
        n: number of samples; 0 gives the empty rate nan with interval [0, 1].
        z: normal quantile of the two-sided level.

    Raises:
        ValueError: hits outside [0, n].
    """
    if not 0 <= hits <= n + 1e-9:
        raise ValueError(f"hits {hits} must lie in [0, {n}]")
    if n == 0:
        return Rate(0.0, 0, math.nan, 0.0, 1.0)
    p = hits / n
    scale = 1 / (1 + z * z / n)
    centre = scale * (p + z * z / (2 * n))
    half = scale * z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Rate(hits, n, p, max(0.0, centre - half), min(1.0, centre + half))


def success_rate(correct: float, flipped: float) -> Rate:
    """Flipped out of correct; with several draws `correct` is an expectation and its interval uses the whole part."""
    n = int(correct)
    if n == 0:
        return wilson(0, 0)
    rate = wilson(min(max(flipped, 0.0) * n / correct, n), n)
    return rate._replace(hits=flipped)
