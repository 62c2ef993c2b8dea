"""The worst case over attacks, image by image."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Chosen:
    """For each image and draw, one of several attacks.

    Attributes:
        stands: where the image stands under the chosen attack, bool [N, draws].
        seen: by what the attack was chosen: in how many of the other draws the image stands under it, [N, draws].
    """

    stands: NDArray[np.bool_]
    seen: NDArray[np.int64]

    @classmethod
    def only(cls, stands: NDArray[np.bool_]) -> "Chosen":
        """The same attack for all images; `stands`: where they stand under it, bool [N, draws]."""
        hits = stands.sum(1, keepdims=True)
        # Without noise there is nothing to be lucky with: the choice is by what happens.
        seen = hits - stands if stands.shape[1] > 1 else hits
        return cls(stands, np.asarray(seen, np.int64))

    def joined(self, other: "Chosen") -> "Chosen":
        """The other's choice where fewer images stand under it in the draws that choose; ties keep this one."""
        better = other.seen < self.seen
        return Chosen(np.where(better, other.stands, self.stands), np.minimum(other.seen, self.seen))


def worst_case(attacks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Where images stand when each meets the attack that is worst for it.

    For a network without noise that is whether an image stands under all attacks. A noisy one is judged in
    expectation, from a few draws, and the least of several such rates is too low: among many attacks one had luck in
    those very draws. So the attack that an image meets in one draw is chosen by the other draws, which is what an
    attacker can do who tries attacks on the network and has no say in the noise that decides. The rate of any fixed
    way to choose is unbiased, and none can be lower than the truth; with few draws the choice errs, so what comes out
    is somewhat above the worst case. An attack joins only where it lowers the rate of all images, so that it is
    never above that of any attack alone.

    Source: cross-fitting (Stone 1974, cross-validatory choice), the draws being the folds.

    Args:
        attacks: for each where images stand, bool [N, draws]; the same draws in all.

    Returns:
        bool [N, draws].

    Raises:
        ValueError: no attack, or not the same images and draws in all.
    """
    ordered = sorted(attacks, key=lambda stands: int(stands.sum()))
    if not ordered or len({stands.shape for stands in ordered}) > 1:
        raise ValueError("a worst case is over at least one attack, on the same images and draws in all")
    found = Chosen.only(ordered[0])
    for stands in ordered[1:]:
        found = lower(found, Chosen.only(stands))
    return found.stands


def lower(found: Chosen, other: Chosen) -> Chosen:
    """The two joined if that lowers the rate, else the first."""
    trial = found.joined(other)
    return trial if trial.stands.sum() < found.stands.sum() else found
