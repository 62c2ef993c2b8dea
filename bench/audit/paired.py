"""Does one attack break more images than another, beyond chance? Both met the same images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.audit.finding import OK, SUSPECT, Finding
from bench.statistics import mcnemar

LEVEL = 0.01
"""A difference counts where chance alone gives one as large with a smaller probability than this."""


def broken_more(
    check: str,
    stands_first: NDArray[np.bool_],
    stands_second: NDArray[np.bool_],
    limit: float,
    fine: str,
    wrong: str,
    verdict: str = SUSPECT,
) -> Finding:
    """The finding that the first attack breaks more images than the second although it should not.

    Args:
        stands_first, stands_second: which images survive each, bool [N].
        limit: by which share of the images it may do so; smaller differences are no alarm even where significant.
        fine, wrong: what was compared, and what to say of an alarm; both are completed by the two accuracies.
        verdict: where it does.
    """
    only_first = int((stands_second & ~stands_first).sum())
    only_second = int((stands_first & ~stands_second).sum())
    gap = (only_first - only_second) / len(stands_first)
    p = mcnemar(only_first, only_second)
    rates = f"{stands_first.mean():.1%} survive against {stands_second.mean():.1%}"
    if gap > limit and p < LEVEL:
        return Finding(check, verdict, gap, limit, f"{wrong}: {rates} (p = {p:.1g})")
    return Finding(check, OK, gap, limit, f"{fine}: {rates}")


def stands(outcome: Any) -> NDArray[np.bool_]:
    """Which images of an outcome survive every iterate in more than half of the scoring draws, bool [N]."""
    return np.asarray(outcome.robust_any > 0.5)
