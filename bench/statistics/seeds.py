"""Means over training seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class SeedMean(NamedTuple):
    """A mean over training seeds with its t-interval.

    Attributes:
        value: mean of `values`.
        low, high: interval for the mean over all seeds that could have been drawn; nan for a single seed, which
            says nothing on how much seeds differ.
        values: one rate for each seed, in the order given.
    """

    value: float
    low: float
    high: float
    values: tuple[float, ...]


def over_seeds(values: Sequence[float], level: float = 0.95) -> SeedMean:
    """Mean and Student's t-interval of one rate per training seed.

    The interval covers everything that differs between the seeds' runs. It does not cover the choice of test
    images, which all seeds share. It is not cut at 0 and 1: an interval that leaves [0, 1] says how little so few
    seeds tell.

    Source: Student 1908; mean +- t_{k-1} * s / sqrt(k).

    Args:
        values: at least one rate, a share in [0, 1].
        level: of the two-sided interval, in (0, 1).

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("a mean over seeds needs at least one value")
    rates = tuple(float(value) for value in values)
    mean = float(np.mean(rates))
    if len(rates) == 1:
        return SeedMean(mean, math.nan, math.nan, rates)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, len(rates) - 1) * np.std(rates, ddof=1) / math.sqrt(len(rates)))
    return SeedMean(mean, mean - half, mean + half, rates)


class Welch(NamedTuple):
    """Two recipes over their training seeds.

    Attributes:
        difference: of the means, the first minus the second.
        low, high: 95% interval of it; nan where all seeds of each agree.
        p: two-sided.
    """

    difference: float
    low: float
    high: float
    p: float


def welch(first: Sequence[float], second: Sequence[float]) -> Welch:
    """Welch's t-test and interval (Welch 1947): two means whose variances may differ.

    Args:
        first, second: one rate for each seed, at least two each.

    Raises:
        ValueError: a single seed says nothing on how much seeds differ.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a comparison over seeds needs at least two of each")
    from scipy.stats import t

    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    difference, error = float(a.mean() - b.mean()), math.sqrt(va + vb)
    if error == 0:
        # Few seeds that happen to agree do not show that all would.
        return Welch(difference, math.nan, math.nan, 1.0)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = float(t.ppf(0.975, df)) * error
    return Welch(difference, difference - half, difference + half, float(2 * t.sf(abs(difference) / error, df)))
