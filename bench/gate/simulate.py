"""What the gate catches and how often it cries wolf. Simulated: `python -m bench.gate.simulate`."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.gate.check import LEVEL, MIN_EFFECT, REGRESSION, Pair, judge

IMAGES, LOSS = 1000, 0.03


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


def simulated(cells: int, churn: float, loss: float, repeats: int = 200, seed: int = 0) -> Case:
    """How often a check fails.

    Each image has a hardness; an attack of some strength breaks what is not hard enough. A share `churn` of the
    images comes out differently in the two measurements, a fair coin says in which of them it stands; then a share
    `loss` of the images is lost in every cell where it stood.
    """
    random = np.random.default_rng(seed)
    failed = sum(_check(random, cells, churn, loss) for _ in range(repeats))
    return Case(cells, churn, loss, failed / repeats, repeats)


def cases(repeats: int = 200) -> Iterator[Case]:
    """The situations of the table in the documentation."""
    for loss in (0.0, LOSS):
        for cells in (1, 6, 20):
            for churn in (0.0, 0.01, 0.02, 0.05):
                yield simulated(cells, churn, loss, repeats)


def _check(random: np.random.Generator, cells: int, churn: float, loss: float) -> bool:
    hardness = random.uniform(0, 1, IMAGES)
    lost = random.permutation(IMAGES)
    restless = random.uniform(0, 1, IMAGES) < churn
    pairs = []
    for strength in np.linspace(0.3, 0.6, cells):
        before = (hardness > strength).astype(float)
        now = before.copy()
        up = random.uniform(0, 1, IMAGES) < 0.5
        before[restless], now[restless] = up[restless], ~up[restless]
        _lose(now, lost, round(loss * IMAGES))
        pairs.append(Pair("network", f"attack {strength:.2f}", "", before, now, (1, 1)))
    return any(line.status == REGRESSION for line in judge(pairs, LEVEL, MIN_EFFECT))


def _lose(now: NDArray[np.float64], order: NDArray[np.int64], count: int) -> None:
    """Take the first `count` standing images, in one order for all cells."""
    standing = order[now[order] > 0]
    now[standing[:count]] = 0


if __name__ == "__main__":
    print("| loss | cells | churn | checks that fail |\n| --- | --- | --- | --- |")
    for case in cases():
        print(f"| {100 * case.loss:g} points | {case.cells} | {case.churn:.0%} | {case.failed:.1%} |")
