"""Two networks, or two measurements of one, on the same images."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.statistics.rates import Rate, wilson

Alternative = Literal["two-sided", "less", "greater"]
"""What is tested against "no difference": another rate, a lower one or a higher one of the first."""

_MOST = 2e10
"""Additions that an exact test may take: some ten seconds."""


class Paired(NamedTuple):
    """The first against the second on the same images.

    Attributes:
        n: images.
        first, second: their rates.
        difference: of the rates, first - second, rounded once, so that 10 of 1,000 images are a hundredth.
        low, high: 95% interval of the difference.
        only_first, only_second: images that one gets right (in more of its scoring draws) than the other.
        p: exact p-value of the sign-flip test, which is McNemar's for networks without noise.
    """

    n: int
    first: Rate
    second: Rate
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float


def compare_pairs(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    draws: tuple[int, int] = (1, 1),
    alternative: Alternative = "two-sided",
) -> Paired:
    """Compare two sets of outcomes on the same images, in the same order.

    The interval is Newcombe's square-and-add interval for paired proportions (Newcombe 1998, Stat. Med. 17:2635,
    method 10), which joins the two Wilson intervals by the outcomes' correlation, that corrected for continuity. For
    shares of draws it is conservative, as Wilson's is.

    Args:
        first, second: share of scoring draws in which each image is right, in [0, 1], [N].
        draws: how many draws those shares are of.
        alternative: `less` asks whether the first is lower.

    Raises:
        ValueError: nothing to compare, not the same images, or no shares of that many draws.
        BenchError: too many draws for an exact test.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"paired outcomes must be of the same images, got {first.shape} and {second.shape}")
    for shares, count in ((first, draws[0]), (second, draws[1])):
        hits = shares * count
        if not (np.abs(hits - np.rint(hits)) < 1e-6).all() or shares.min() < 0 or shares.max() > 1:
            raise ValueError(f"outcomes are not shares of {count} scoring draw{'s' * (count != 1)}")
    scale = math.lcm(*draws)
    n = len(first)
    steps = np.rint((first - second) * scale).astype(np.int64)
    one, two = wilson(float(first.sum()), n), wilson(float(second.sum()), n)
    deviation = first.std() * second.std()
    # n^2 times the covariance is Newcombe's ad - bc.
    covariance = float(np.mean((first - one.value) * (second - two.value)))
    covariance = max(covariance - 0.5 / n, 0.0) if covariance > 0 else covariance
    phi = covariance / deviation if deviation > 0 else 0.0
    difference = int(steps.sum()) / (scale * n)

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    low = difference - reach(one.value - one.low, two.high - two.value)
    high = difference + reach(one.high - one.value, two.value - two.low)
    return Paired(
        n, one, two, difference, max(-1.0, low), min(1.0, high),
        int((steps > 0).sum()), int((steps < 0).sum()), sign_flip(steps, alternative),
    )  # fmt: skip


def sign_flip(differences: NDArray[np.int64], alternative: Alternative = "two-sided") -> float:
    """Exact p-value of the sum of paired differences when each one's sign is a fair coin.

    Under the null hypothesis the two networks are exchangeable on every image. For differences in {-1, 0, 1} this
    is McNemar's exact test; for differences of shares of draws it is the same idea with the shares kept
    (Fisher's randomisation test, 1935). Computed exactly, by convolution.

    Args:
        differences: integers, one for each image, [N].
        alternative: `less` is small where the sum is negative.

    Raises:
        BenchError: the differences are too fine for an exact test of that many images.
    """
    total = int(differences.sum())
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    divisor = int(np.gcd.reduce(sizes))
    sizes = sizes // divisor
    if float(counts.sum()) * float((sizes * counts).sum()) > _MOST:
        raise BenchError(
            f"shares of that many scoring draws on {counts.sum()} images that differ are too fine for an exact test; "
            "measure both networks with the same, smaller --draws"
        )
    # The number of heads among the coins of one size, spread by that size, added up over sizes.
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        chances = _with_coins(chances, size, count)
    # heads - tails = total, where heads + tails is the sum of all sizes.
    heads = (total // divisor + len(chances) - 1) // 2
    below, above = float(chances[: heads + 1].sum()), float(chances[heads:].sum())
    p = {"less": below, "greater": above, "two-sided": 2 * min(below, above)}[alternative]
    return min(1.0, p)


def mcnemar(only_first: int, only_second: int, alternative: Alternative = "greater") -> float:
    """Exact p-value of McNemar's test (McNemar 1947) from the discordant images.

    Args:
        only_first, only_second: images on which only the one or only the other succeeds.
        alternative: `greater` is small where the first succeeds on more.
    """
    n = only_first + only_second
    upper = Fraction(sum(math.comb(n, k) for k in range(only_first, n + 1)), 2**n)
    lower = Fraction(sum(math.comb(n, k) for k in range(only_first + 1)), 2**n)
    p = {"greater": upper, "less": lower, "two-sided": 2 * min(upper, lower)}[alternative]
    return float(min(p, Fraction(1)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted so that the chance of any false alarm in the family stays below the level.

    Source: Holm 1979, step-down; valid whatever the dependence between the tests.

    Args:
        p_values: of one family of tests.

    Returns:
        adjusted p-values in the order given; compare each with the level.
    """
    m, adjusted, largest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def _binomial(n: int) -> NDArray[np.float64]:
    from scipy.stats import binom

    return np.asarray(binom.pmf(np.arange(n + 1), n, 0.5))


def _with_coins(chances: NDArray[np.float64], size: int, count: int) -> NDArray[np.float64]:
    """The distribution of a sum after `count` coins of one size joined it."""
    # By FFT the small tails, which are what a p-value is, would drown in the rounding of the large middle.
    heads = _binomial(count)
    if size == 1:
        return np.convolve(chances, heads)
    joined = np.zeros(len(chances) + size * count)
    for number, chance in enumerate(heads):
        joined[number * size : number * size + len(chances)] += chance * chances
    return joined
