"""What the gate catches and how often it cries wolf. Simulated: `python -m bench.gate.simulate`."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.gate.check import LEVEL, MIN_EFFECT, is_fall
from bench.gate.power import IMAGES, LOSS
from bench.statistics import holm, sign_flip

_AT_ONCE = 250


class Case(NamedTuple):
    """One situation.

    Attributes:
        cells: attacks that the check compares, nested: what a weaker one breaks a stronger one breaks as well.
        churn: share of images whose outcome changes either way between two measurements, by chance alone.
        loss: share of images that stand no longer, in every cell.
        failed: share of the simulated checks that failed.
        repeats: simulated checks.
    """

    cells: int
    churn: float
    loss: float
    failed: float
    repeats: int


def simulated(cells: int, churn: float, loss: float, repeats: int = 4000, seed: int = 0) -> Case:
    """How often a check fails.

    Each image has a hardness; an attack of some strength breaks what is not hard enough. A share `churn` of the
    images comes out differently in the two measurements, a fair coin says in which of them it stands; then a share
    `loss` of the images is lost in every cell where it stood.
    """
    random = np.random.default_rng(seed)
    failed = 0
    for start in range(0, repeats, _AT_ONCE):
        before, now = measurements(random, cells, churn, loss, min(_AT_ONCE, repeats - start))
        failed += int(verdicts(before, now).sum())
    return Case(cells, churn, loss, failed / repeats, repeats)


def cases(repeats: int = 4000) -> Iterator[Case]:
    """The situations of the table in the documentation."""
    for loss in (0.0, LOSS):
        for cells in (1, 6, 20):
            for churn in (0.01, 0.02, 0.05):
                yield simulated(cells, churn, loss, repeats)


def measurements(
    random: np.random.Generator, cells: int, churn: float, loss: float, repeats: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images stand before and now, [repeats, cells, images] each."""
    strengths = np.linspace(0.3, 0.6, cells)[:, None]
    before = random.uniform(0, 1, (repeats, 1, IMAGES)) > strengths
    restless = random.uniform(0, 1, (repeats, 1, IMAGES)) < churn
    up = random.integers(0, 2, before.shape, np.uint8).astype(bool)
    now = np.where(restless, ~up, before)
    before = np.where(restless, up, before)
    # Images are in random order, so the first that stand are as good as any, and nearly the same in all cells.
    now &= now.cumsum(2) > round(loss * IMAGES)
    return before, now


def verdicts(before: NDArray[np.bool_], now: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which checks fail, [repeats]: what `bench.gate.check.judge` says, from counts, for thousands of checks."""
    lost, gained = (before & ~now).sum(2), (now & ~before).sum(2)
    return np.asarray(
        [_fails(tuple(zip(*pair, strict=True))) for pair in zip(gained.tolist(), lost.tolist(), strict=True)]
    )


def _fails(counts: tuple[tuple[int, int], ...]) -> bool:
    adjusted = holm([_p(gained, lost) for gained, lost in counts])
    return any(
        is_fall(p, (gained - lost) / IMAGES, LEVEL, MIN_EFFECT)
        for (gained, lost), p in zip(counts, adjusted, strict=True)
    )


@cache
def _p(gained: int, lost: int) -> float:
    return sign_flip(np.repeat(np.asarray([1, -1], np.int64), [gained, lost]), "less")


if __name__ == "__main__":
    print("| loss | cells | churn | checks that fail |\n| --- | --- | --- | --- |")
    for case in cases():
        print(f"| {100 * case.loss:g} points | {case.cells} | {case.churn:.0%} | {case.failed:.2%} |")
