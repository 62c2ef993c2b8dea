"""Paired tests against enumeration, families of tests, and what all of it promises, by simulation."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, ttest_ind
from scipy.stats import t as student

from bench.errors import BenchError
from bench.statistics import compare_pairs, holm, mcnemar, over_seeds, sign_flip, welch
from bench.statistics.simulate import promises

COUNTS = st.integers(0, 60)


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_binomial_test_of_the_discordant_images(first: int, second: int) -> None:
    for alternative in ("two-sided", "greater", "less"):
        expected = binomtest(first, first + second, alternative=alternative).pvalue if first + second else 1.0
        assert mcnemar(first, second, alternative) == pytest.approx(expected, rel=1e-9)  # type: ignore[arg-type]


@given(st.lists(st.integers(-4, 4), max_size=10))
@settings(max_examples=60)
def test_sign_flip_is_the_share_of_all_sign_patterns(values: list[int]) -> None:
    signs = itertools.product((-1, 1), repeat=len(values))
    sums = [sum(s * abs(v) for s, v in zip(pattern, values, strict=True)) for pattern in signs]
    total = sum(values)
    below = Fraction(sum(s <= total for s in sums), len(sums))
    above = Fraction(sum(s >= total for s in sums), len(sums))
    differences = np.asarray(values, np.int64)
    assert sign_flip(differences, "less") == pytest.approx(float(below))
    assert sign_flip(differences, "greater") == pytest.approx(float(above))
    assert sign_flip(differences) == pytest.approx(min(1.0, 2 * float(min(below, above))))


@given(COUNTS, COUNTS)
def test_sign_flip_of_single_draws_is_mcnemar(first: int, second: int) -> None:
    differences = np.asarray([1] * first + [-1] * second + [0] * 5, np.int64)
    assert sign_flip(differences) == pytest.approx(mcnemar(first, second, "two-sided"), rel=1e-9)


def test_small_p_values_are_right_and_not_lost_in_rounding() -> None:
    differences = np.ones(400, np.int64)
    assert sign_flip(differences, "greater") == pytest.approx(0.5**400, rel=1e-9)
    shares = np.asarray([3, 5] * 100, np.int64)
    assert sign_flip(shares, "greater") == pytest.approx(0.5**200, rel=1e-9)


def test_fine_shares_are_exact_and_too_fine_ones_are_refused() -> None:
    random = np.random.default_rng(0)
    first, second = random.binomial(99, 0.5, 400) / 99, random.binomial(100, 0.5, 400) / 100
    found = compare_pairs(first, second, (99, 100))
    # So many differences of many sizes: the sum is nearly normal, so the two agree.
    steps = (first - second) * 9900
    assert found.p == pytest.approx(2 * norm.sf(abs(steps.sum()) / np.sqrt((steps**2).sum())), abs=0.002)
    many = np.tile([0.0, 1 / 997], 20_000), np.tile([1 / 991, 1.0], 20_000)
    with pytest.raises(BenchError, match="with the same, smaller --draws"):
        compare_pairs(*many, (997, 991))


@given(st.integers(1, 50), st.integers(0, 10_000))
@settings(max_examples=60)
def test_swapping_the_networks_mirrors_everything(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.binomial(3, 0.5, n) / 3, random.binomial(2, 0.5, n) / 2
    one, two = compare_pairs(a, b, (3, 2)), compare_pairs(b, a, (2, 3))
    assert (one.only_first, one.only_second) == (two.only_second, two.only_first)
    assert one.p == pytest.approx(two.p)
    assert one.difference == pytest.approx(-two.difference)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))
    assert one.low <= one.difference + 1e-12 and one.difference - 1e-12 <= one.high
    order = random.permutation(n)
    assert compare_pairs(a[order], b[order], (3, 2)).p == pytest.approx(one.p)


def test_newcombe_s_published_example() -> None:
    """Newcombe 1998 (Stat. Med. 17:2635), table II, a 20, b 12, c 2, d 16: method 10 without continuity correction."""
    first = np.asarray([1.0] * 32 + [0.0] * 18)
    second = np.asarray([1.0] * 20 + [0.0] * 12 + [1.0] * 2 + [0.0] * 16)
    paired = compare_pairs(first, second)
    assert paired.difference == pytest.approx(0.2)
    assert (paired.low, paired.high) == pytest.approx((0.0562, 0.3292), abs=6e-4)


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        compare_pairs(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="same images"):
        compare_pairs(np.ones(0), np.ones(0))


@pytest.mark.parametrize("shares", [[0.4, 0.6], [np.nan, 1.0], [-1.0, 1.0], [2.0, 0.0]])
def test_what_is_no_share_of_the_draws_is_refused(shares: list[float]) -> None:
    """Rounded to whole hits, shares of five draws would give a p-value that looks like any other."""
    with pytest.raises(ValueError, match="not shares of 1 scoring draw"):
        compare_pairs(np.asarray(shares), np.ones(2))


@given(st.integers(0, 990))
def test_a_difference_of_ten_in_a_thousand_is_a_hundredth(standing: int) -> None:
    first, second = (np.arange(1000) < count for count in (standing, standing + 10))
    assert compare_pairs(first.astype(float), second.astype(float)).difference == -0.01


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_closure_of_bonferroni(ps: list[float]) -> None:
    """A hypothesis is rejected at a level if and only if Bonferroni rejects every family that holds it."""
    adjusted = holm(ps)
    for i in range(len(ps)):
        families = [
            [ps[j] for j in family]
            for size in range(1, len(ps) + 1)
            for family in itertools.combinations(range(len(ps)), size)
            if i in family
        ]
        assert adjusted[i] == pytest.approx(min(1.0, max(len(f) * min(f) for f in families)))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_the_mean_over_seeds_is_student_s(values: list[float]) -> None:
    mean = over_seeds(values)
    assert mean.values == tuple(values)
    expected = student.interval(0.95, len(values) - 1, np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5)
    if np.std(values, ddof=1) > 1e-12:
        assert (mean.low, mean.high) == pytest.approx(expected, abs=1e-9)


@given(*(st.lists(st.integers(0, 1000).map(lambda k: k / 1000), min_size=2, max_size=6) for _ in range(2)))
def test_welch_agrees_with_scipy(first: list[float], second: list[float]) -> None:
    found = welch(first, second)
    if np.var(first) + np.var(second) > 1e-9:
        expected = ttest_ind(first, second, equal_var=False)
        assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
        interval = expected.confidence_interval()
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_welch_of_seeds_that_agree_shows_nothing_and_single_ones_are_refused() -> None:
    found = welch([0.5, 0.5], [0.4, 0.4])
    assert found.p == 1
    assert np.isnan([found.low, found.high]).all()
    with pytest.raises(ValueError, match="at least two"):
        welch([0.5], [0.4, 0.3])


def test_one_seed_has_no_interval_and_none_is_an_error() -> None:
    assert np.isnan(over_seeds([0.5]).low)
    with pytest.raises(ValueError, match="at least one"):
        over_seeds([])


@pytest.fixture(scope="module")
def simulated() -> list[tuple[str, float, float, int]]:
    return list(promises(repeats=1000, seed=1))


def test_simulated_coverage_and_false_alarms_keep_what_is_promised(simulated: list[tuple]) -> None:  # type: ignore[type-arg]
    assert len(simulated) >= 15
    for what, share, nominal, repeats in simulated:
        # Three standard errors of the simulation itself, and the half point by which score intervals oscillate.
        slack = 3 * (nominal * (1 - nominal) / repeats) ** 0.5 + 0.005
        assert share >= nominal - slack if nominal > 0.5 else share <= nominal + slack, what


def test_the_simulation_would_notice_a_test_that_cries_wolf(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.statistics.simulate as simulate

    monkeypatch.setattr(simulate, "holm", lambda ps: ps)
    families = [p for p in simulate.promises(repeats=400, seed=2) if p.what.startswith("Holm")]
    assert any(p.share > p.nominal for p in families)
