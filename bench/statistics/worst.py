"""The worst case over attacks, image by image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def worst_case(attacks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Where images stand when each meets the attack that is worst for it.

    For a network without noise, which has a single draw, that is whether an image stands under all attacks.

    A noisy network is judged in expectation, from a few draws, and the least of several such rates is too low: among
    many attacks one had luck in those very draws. So the attack that an image meets in one draw is the one under which
    it stands in fewest of the other draws; between equals the one under which fewest images do. An attacker can do
    that, who tries attacks on the network and has no say in the noise that decides. The rate of this attacker is
    estimated without bias, however many attacks there are, and no attacker's is below the worst case: with few draws
    the choice errs, so the rate is somewhat above it. It may also come out a little above the rate of the attack that
    had most luck.

    Source: cross-fitting (Stone 1974, cross-validatory choice), the draws being the folds.

    Args:
        attacks: for each where images stand, bool [N, draws]; draw d is the same noise in all.

    Returns:
        bool [N, draws].

    Raises:
        ValueError: no attack, or not the same images and draws in all.
    """
    if not attacks or len({stands.shape for stands in attacks}) > 1:
        raise ValueError("a worst case is over at least one attack, on the same images and draws in all")
    stack = np.stack(list(attacks))
    if stack.shape[2] == 1:
        return np.asarray(stack.all(0))
    others = stack.sum(2, keepdims=True) - stack
    # At most 1, and less than 1 apart: it decides between equals only.
    ties = others.mean(1, keepdims=True) / stack.shape[2]
    return np.asarray(np.take_along_axis(stack, (others + ties).argmin(0)[None], 0)[0])


def better_of(usual: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """As `worst_case` for two candidates, of which the first is taken between equals, so that images do not interact.

    Args:
        usual, other: where images stand, bool [N, draws].
    """
    if usual.shape[1] == 1:
        return usual & other
    seen, seen_other = (stands.sum(1, keepdims=True) - stands for stands in (usual, other))
    return np.where(seen_other < seen, other, usual)
