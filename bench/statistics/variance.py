"""Where the uncertainty of a robust accuracy comes from."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FACTORS = ("training seed", "attack seed", "image")
REST, DRAW = "interplay", "draw"


@dataclass(frozen=True)
class Component:
    """One source of variance.

    Attributes:
        source: a factor of `FACTORS`; `interplay`, of factors, such as images that one seed gets right and another
            does not, all of them together; or `draw`, the noise of a stochastic network.
        levels: how many there were; of the interplay, how many combinations.
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

    Model: y = mean + seed + attack + image + their interplays in twos and in threes + draw, all effects random and
    independent, draws nested in all the others, since every image has its own noise. The expected mean square of a
    set of factors is the sum, over all sets that hold it, of the set's variance times the number of averages that
    share one of its effects; so components follow one by one, from the largest set down. With one observation a place
    the draw cannot be told from the largest set's own effect, and with one level a factor cannot be told at all.

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
    variances = _crossed(means, (within or 0.0) / draws)
    components = [
        _component(name, levels, variances.get((axis,)), levels)
        for axis, (name, levels) in enumerate(zip(FACTORS, means.shape, strict=True))
    ]
    mixed = {axes: variance for axes, variance in variances.items() if len(axes) > 1}
    spread = sum(max(0.0, variance) / _places(means.shape, axes) for axes, variance in mixed.items())
    interplay = Component(
        REST, means.size, sum(max(0.0, variance) for variance in mixed.values()), math.sqrt(spread),
        min(mixed.values()) < 0,
    ) if mixed else Component(REST, means.size, None, None)  # fmt: skip
    components += [interplay, _component(DRAW, draws, within, means.size * draws)]
    error = math.sqrt(sum(part.error**2 for part in components if part.error is not None))
    unknown = tuple(part.source for part in components if part.variance is None)
    return Split(float(means.mean()), tuple(components), error, unknown)


def _crossed(means: NDArray[np.float64], noise: float) -> dict[tuple[int, ...], float]:
    """Axes that vary together -> variance of their own effect; `noise` is that of a single average."""
    varying = [axis for axis, levels in enumerate(means.shape) if levels > 1]
    found: dict[tuple[int, ...], float] = {}
    for size in range(len(varying), 0, -1):
        for axes in combinations(varying, size):
            effect = np.zeros(())
            for kept in (part for count in range(size + 1) for part in combinations(axes, count)):
                others = tuple(axis for axis in range(means.ndim) if axis not in kept)
                effect = effect + (-1) ** (size - len(kept)) * means.mean(axis=others, keepdims=True)
            shared = means.size / _places(means.shape, axes)
            square = shared * float((effect**2).sum()) / math.prod(means.shape[axis] - 1 for axis in axes)
            above = sum(
                variance * means.size / _places(means.shape, wider)
                for wider, variance in found.items()
                if set(wider) > set(axes)
            )
            found[axes] = (square - above - noise) / shared
    return found


def _places(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod(shape[axis] for axis in axes)


def _component(source: str, levels: int, variance: float | None, repeats: int) -> Component:
    if variance is None:
        return Component(source, levels, None, None)
    kept = max(0.0, variance)
    return Component(source, levels, kept, math.sqrt(kept / repeats), variance < 0)
