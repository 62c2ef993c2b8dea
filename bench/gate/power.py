"""What one comparison of a check catches, exactly and without simulation: `python -m bench.gate.power`."""

import numpy as np
from scipy.stats import binom

from bench.gate.check import LEVEL, MIN_EFFECT

IMAGES, LOSS, POWER = 1000, 0.03, 0.95


def chance_of_failing(images: int, churn: float, loss: float, level: float, min_effect: float = MIN_EFFECT) -> float:
    """Probability that one comparison of two networks without noise fails, by adding up all outcomes.

    Every image by itself is lost with probability churn / 2 + loss and gained with churn / 2, so that images are drawn
    at random, too, and not only what happens to them.

    Args:
        images: of the test set.
        churn: share of images whose outcome changes by chance, as often up as down.
        loss: true fall, a share of the images.
        level: of this comparison; Holm leaves the smallest p-value of m comparisons the level / m.
        min_effect: smallest fall that counts.
    """
    changed = churn + loss
    if changed == 0:
        return 0.0
    discordant = np.arange(images + 1)
    # The fewest losses among the discordant images that are significant, and those that make a large enough fall.
    significant = binom.isf(level, discordant, 0.5) + 1
    fall = next(k for k in range(images + 1) if k / images >= min_effect)
    enough = np.maximum(significant, np.ceil((discordant + fall) / 2))
    caught = binom.sf(enough - 1, discordant, (churn / 2 + loss) / changed)
    return float((binom.pmf(discordant, images, changed) * caught).sum())


def largest_churn(comparisons: int, images: int = IMAGES) -> float:
    """Up to which churn, in tenths of a percent, a loss of 3 points in one of so many comparisons is caught."""
    steps = 0
    while chance_of_failing(images, (steps + 1) / 1000, LOSS, LEVEL / comparisons) >= POWER:
        steps += 1
    return steps / 1000


def images_needed(comparisons: int, churn: float) -> int:
    """From how many hundreds of images on a loss of 3 points in one of so many comparisons is caught."""
    hundreds = 1
    while chance_of_failing(100 * hundreds, churn, LOSS, LEVEL / comparisons) < POWER:
        hundreds += 1
    return 100 * hundreds


def largest_size(images: int = IMAGES) -> float:
    """The largest chance over all churns that a single comparison without any loss fails."""
    return max(chance_of_failing(images, churn, 0.0, LEVEL) for churn in np.arange(1, 500) / 1000)


if __name__ == "__main__":
    churns = (0.05, 0.1, 0.2)
    heads = ["comparisons", "churn at 1,000 images", *(f"images at {churn:.0%} churn" for churn in churns)]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for comparisons in (1, 2, 3, 7, 21):
        needed = " | ".join(f"{images_needed(comparisons, churn):,}" for churn in churns)
        print(f"| {comparisons} | {largest_churn(comparisons):.1%} | {needed} |")
