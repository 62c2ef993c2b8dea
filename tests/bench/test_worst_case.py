"""The worst case over attacks as a number: exact without noise, neither lucky nor blind with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.statistics import worst_case

DRAWS = 5


def drawn(random: np.random.Generator, chances: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Outcomes of attacks under each of which an image stands with its own chance, [attacks, N]."""
    return list(random.random((*chances.shape, DRAWS)) < chances[..., None])


def least(attacks: list[NDArray[np.bool_]]) -> float:
    """The least of the rates, image by image: what luck does to it is why it is not used."""
    return float(np.min([stands.mean(1) for stands in attacks], axis=0).mean())


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_without_noise_an_image_stands_where_it_stands_under_all(seed: int, attacks: int) -> None:
    outcomes = np.random.default_rng(seed).random((attacks, 30, 1)) < 0.7
    assert np.array_equal(worst_case(list(outcomes)), outcomes.all(0))


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 5))
def test_what_decides_a_draw_is_the_other_draws(seed: int, attacks: int, draws: int) -> None:
    random = np.random.default_rng(seed)
    outcomes = random.random((attacks, 20, draws)) < random.random((attacks, 20, 1))
    found = worst_case(list(outcomes))
    flipped = outcomes.copy()
    flipped[..., 0] = ~flipped[..., 0]
    assert np.array_equal(worst_case(list(flipped))[:, 0], ~found[:, 0])
    assert (found >= np.logical_and.reduce(list(outcomes))).all()
    assert (found <= np.logical_or.reduce(list(outcomes))).all()
    if attacks == 1:
        assert np.array_equal(found, outcomes[0])


def test_attacks_that_are_equally_good_are_no_worse_together() -> None:
    """Nothing but luck tells them apart: the least rate is far below the truth, and further with each attack."""
    random = np.random.default_rng(0)
    for attacks, n, repeats in ((6, 4000, 1), (33, 100, 60)):
        chance = random.random(n)
        found = [drawn(random, np.broadcast_to(chance, (attacks, n))) for _ in range(repeats)]
        truth = float(chance.mean())
        assert np.mean([least(outcomes) for outcomes in found]) < truth - 0.1
        assert np.mean([worst_case(outcomes).mean() for outcomes in found]) == pytest.approx(truth, abs=0.012)


def test_attacks_that_break_other_images_are_worse_together() -> None:
    random = np.random.default_rng(1)
    chances = np.full((4, 4000), 0.9)
    chances[np.arange(4000) % 4, np.arange(4000)] = 0.1
    outcomes = drawn(random, chances)
    found = worst_case(outcomes).mean()
    assert min(stands.mean() for stands in outcomes) > 0.65
    assert 0.1 <= found < 0.15


def test_it_is_not_below_the_truth_in_expectation() -> None:
    random = np.random.default_rng(2)
    for attacks in (5, 30):
        gaps = []
        for _ in range(40):
            chances = np.clip(random.random(200) + random.normal(0, 0.15, (attacks, 200)), 0, 1)
            gaps.append(worst_case(drawn(random, chances)).mean() - chances.min(0).mean())
        assert 0 < np.mean(gaps) < 0.25


@pytest.mark.parametrize("attacks", [[], [np.ones((3, 2), bool), np.ones((3, 5), bool)]])
def test_other_draws_are_no_worst_case(attacks: list[NDArray[np.bool_]]) -> None:
    with pytest.raises(ValueError, match="on the same images and draws in all"):
        worst_case(attacks)
