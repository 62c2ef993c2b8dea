"""Variance components: exact on designs that can be worked out, unbiased by simulation."""

import numpy as np
import pytest

from bench.statistics.variance import Split, split_variance


def of(split: Split, source: str) -> float | None:
    return next(part.variance for part in split.components if part.source == source)


def simulated(random: np.random.Generator, shape: tuple[int, ...], sizes: dict[str, float]) -> np.ndarray:
    seeds, attacks, _, images = shape
    y = np.full(shape, 0.5)
    y += random.normal(0, sizes["training seed"], (seeds, 1, 1, 1))
    y += random.normal(0, sizes["attack seed"], (1, attacks, 1, 1))
    y += random.normal(0, sizes["image"], (1, 1, 1, images))
    y += random.normal(0, sizes["interplay"], (seeds, attacks, 1, images))
    return y + random.normal(0, sizes["draw"], shape)


def test_components_are_unbiased_and_the_error_is_that_of_the_mean() -> None:
    random = np.random.default_rng(0)
    sizes = {"training seed": 0.05, "attack seed": 0.03, "image": 0.4, "interplay": 0.2, "draw": 0.3}
    splits = [split_variance(simulated(random, (4, 5, 3, 60), sizes)) for _ in range(600)]
    for source, size in sizes.items():
        found = np.asarray([of(split, source) for split in splits])
        # Truncation at 0 biases small components upwards; here it hardly ever strikes.
        assert found.mean() == pytest.approx(size**2, rel=0.12), source
    means = np.asarray([split.mean for split in splits])
    assert np.sqrt(np.mean([split.error**2 for split in splits])) == pytest.approx(means.std(), rel=0.1)


def test_interplays_of_two_factors_bias_neither_components_nor_error() -> None:
    """Images that one training seed gets right and another does not, as two trained networks have."""
    random = np.random.default_rng(1)
    sizes = {"training seed": 0.03, "attack seed": 0.02, "image": 0.35, "interplay": 0.1, "draw": 0.0}
    splits = []
    for _ in range(600):
        y = simulated(random, (3, 4, 1, 100), sizes)
        y += random.normal(0, 0.3, (3, 1, 1, 100)) + random.normal(0, 0.15, (1, 4, 1, 100))
        splits.append(split_variance(y))
    means = np.asarray([split.mean for split in splits])
    assert np.sqrt(np.mean([split.error**2 for split in splits])) == pytest.approx(means.std(), rel=0.1)
    found = {source: np.mean([of(split, source) or 0.0 for split in splits]) for source in (*sizes, "interplay")}
    assert found["interplay"] == pytest.approx(0.1**2 + 0.3**2 + 0.15**2, rel=0.03)
    assert found["image"] == pytest.approx(0.35**2, rel=0.06)
    # Some single estimates are below 0 and cut there; without the interplay taken out it would be twice the truth.
    assert found["training seed"] == pytest.approx(0.03**2, rel=0.35)


def test_one_source_alone_is_found_exactly() -> None:
    effect = np.asarray([0.1, 0.2, 0.6])
    split = split_variance(np.broadcast_to(effect[:, None, None, None], (3, 2, 2, 4)).copy())
    assert of(split, "training seed") == pytest.approx(effect.var(ddof=1))
    for other in ("attack seed", "image", "interplay", "draw"):
        assert of(split, other) == pytest.approx(0.0, abs=1e-12)


def test_a_single_level_is_unknown_and_not_zero() -> None:
    split = split_variance(np.random.default_rng(0).integers(0, 2, (1, 1, 1, 50)).astype(float))
    assert split.unknown == ("training seed", "attack seed", "interplay", "draw")
    image = next(part for part in split.components if part.source == "image")
    # All there is: the binomial error of the images.
    assert image.error == pytest.approx(np.sqrt(split.mean * (1 - split.mean) / 49))


def test_a_negative_estimate_is_zero_and_marked() -> None:
    y = np.asarray([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])[:, None, None, :]
    seeds = next(part for part in split_variance(y).components if part.source == "training seed")
    assert seeds.variance == 0
    assert seeds.negative


@pytest.mark.parametrize("shape", [(2, 3), (1, 1, 1, 1), (2, 2, 2)])
def test_what_is_no_table_of_outcomes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected outcomes"):
        split_variance(np.zeros(shape))
