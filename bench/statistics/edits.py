"""How much an attack on events changed, over the recordings that it broke."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.outcome import Outcome
from bench.statistics.rates import Rate, success_rate

KINDS = ("added", "removed", "moved")


@dataclass(frozen=True)
class EditSummary:
    """What it took to break the recordings that an attack on events broke.

    Attributes:
        broken: how many: right without attack and wrong under it, in more than half of the draws.
        mean, median: events changed in each.
        mean_share, median_share: the same for each event of the recording.
        by_kind: mean number of events added, removed and moved.
        believed: share of the clean-correct images that are wrong under the frames that the attack itself computed
            with. No recording need have such frames.
    """

    broken: int
    mean: float
    median: float
    mean_share: float
    median_share: float
    by_kind: dict[str, float]
    believed: Rate


def edit_summary(outcome: Outcome) -> EditSummary | None:
    """The summary of a cell's edits; None for an attack that edits no events.

    Where nothing was broken the means are NaN.
    """
    if outcome.edits is None:
        return None
    clean = outcome.clean.mean(1)
    broken = (clean > 0.5) & (outcome.robust_last < 0.5)
    events, kinds = outcome.edits[broken, 0].astype(np.float64), outcome.edits[broken, 1:].astype(np.float64)
    changed = kinds.sum(1)
    shares = changed / np.maximum(events, 1)
    correct = round(float(clean.sum()), 9)
    return EditSummary(
        int(broken.sum()),
        _of(np.mean, changed),
        _of(np.median, changed),
        _of(np.mean, shares),
        _of(np.median, shares),
        {name: _of(np.mean, kinds[:, k]) for k, name in enumerate(KINDS)},
        success_rate(correct, correct - float(outcome.robust_believed.sum())),
    )


def _of(what: Callable[[NDArray[np.float64]], np.floating[Any]], values: NDArray[np.float64]) -> float:
    return float(what(values)) if len(values) else float("nan")
