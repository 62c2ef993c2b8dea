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
