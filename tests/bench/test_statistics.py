"""Intervals against scipy, and their coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bench.statistics import wilson


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts: tuple[int, int]) -> None:
    hits, n = counts
    rate = wilson(hits, n)
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert rate.value == hits / n
    assert rate.low == pytest.approx(expected.low, abs=1e-9)
    assert rate.high == pytest.approx(expected.high, abs=1e-9)


def test_coverage_is_near_nominal() -> None:
    random = np.random.default_rng(1)
    for p in (0.02, 0.3, 0.9):
        rates = [wilson(int(hits), 500) for hits in random.binomial(500, p, 4000)]
        covered = np.mean([rate.low <= p <= rate.high for rate in rates])
        assert 0.93 <= covered <= 0.97


def test_expectation_over_draws_is_covered_at_least_as_well() -> None:
    random = np.random.default_rng(2)
    chances = random.uniform(0, 1, (2000, 300))
    means = random.binomial(5, chances) / 5
    covered = [rate.low <= 0.5 <= rate.high for rate in (wilson(float(row.sum()), 300) for row in means)]
    assert np.mean(covered) >= 0.95


def test_rate_of_nothing_is_nan_with_the_whole_interval() -> None:
    rate = wilson(0, 0)
    assert math.isnan(rate.value)
    assert (rate.low, rate.high) == (0, 1)


@pytest.mark.parametrize("hits", [-1, 11])
def test_impossible_counts_are_refused(hits: int) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        wilson(hits, 10)
