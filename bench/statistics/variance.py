"""Where the uncertainty of a robust accuracy comes from."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FACTORS = ("training seed", "attack seed", "image")
REST, DRAW = "interplay", "draw"


@dataclass(frozen=True)
class Component:
    """One source of variance.

    Attributes:
        source: a factor of `FACTORS`; `interplay`, of factors, such as images that one seed gets right and another
            does not; or `draw`, the noise of a stochastic network.
        levels: how many there were.
        variance: of one observation, in squared shares; None where a single level leaves it unknown.
        error: the standard error that it alone gives the mean over all observations; None where unknown.
        negative: the estimate was below 0 and set to 0, as happens where the true value is small.
    """

    source: str
    levels: int
    variance: float | None
    error: float | None
    negative: bool = False


@dataclass(frozen=True)
class Split:
    """The components of a mean.

    Attributes:
        mean: over all observations.
        components: in the order of `FACTORS`, then interplay and draw.
        error: standard error of the mean from all known components together.
        unknown: factors with a single level: the error does not hold their part.
    """

    mean: float
    components: tuple[Component, ...]
    error: float
    unknown: tuple[str, ...]


def split_variance(correct: NDArray[np.float64]) -> Split:
    """Variance components of a balanced, crossed random-effects layout by the method of moments.

    Model: y = mean + seed + attack + image + interplay + draw, all effects random and independent, draws nested in
    all the others, since every image has its own noise. With the draws averaged, the expected mean square of a factor
    with L levels is var(interplay) + var(draw) / D + (N / L) var(factor), where N counts the averages. The interplay
    of two factors is not told from that of all three, so that with several levels of both seeds its error is
    somewhat too small.

    Source: Searle, Casella, McCulloch, Variance Components, 1992, ch. 4.

    Args:
        correct: share or indicator of "right without and under attack", [training seeds, attack seeds, draws, images].

    Returns:
        the split; factors with one level are unknown, not zero.

    Raises:
        ValueError: not four axes, or fewer than two observations.
    """
    y = np.asarray(correct, np.float64)
    if y.ndim != 4 or y.size < 2:
        raise ValueError(f"expected outcomes [training seeds, attack seeds, draws, images], got {list(y.shape)}")
    draws, means = y.shape[2], y.mean(2)
    within = float(y.var(axis=2, ddof=1).mean()) if draws > 1 else None
    total, mean = means.size, float(means.mean())
    effects = []
    for axis in range(means.ndim):
        others = tuple(i for i in range(means.ndim) if i != axis)
        effects.append(means.mean(axis=others, keepdims=True) - mean)
    freedom = total - 1 - sum(levels - 1 for levels in means.shape)
    left = means - mean - effects[0] - effects[1] - effects[2]
    rest = float((left**2).sum() / freedom) if freedom > 0 else None
    components = []
    for name, levels, effect in zip(FACTORS, means.shape, effects, strict=True):
        square = float((total / levels) * (effect**2).sum() / (levels - 1)) if levels > 1 else None
        # With a single seed there is nothing to tell an image's own chance from interplay: it is all the image's.
        below = rest if rest is not None else (within or 0.0) / draws
        components.append(
            _component(name, levels, None if square is None else (square - below) / (total / levels), levels)
        )
    noise = None if within is None else within / draws
    interplay = None if rest is None else rest - (noise or 0.0)
    components.append(_component(REST, total, interplay, total))
    components.append(_component(DRAW, draws, within, total * draws))
    error = math.sqrt(sum(part.error**2 for part in components if part.error is not None))
    unknown = tuple(part.source for part in components if part.variance is None)
    return Split(mean, tuple(components), error, unknown)


def _component(source: str, levels: int, variance: float | None, repeats: int) -> Component:
    if variance is None:
        return Component(source, levels, None, None)
    kept = max(0.0, variance)
    return Component(source, levels, kept, math.sqrt(kept / repeats), variance < 0)
