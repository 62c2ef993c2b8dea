"""Stochastic quantisation encoding."""

from dataclasses import dataclass
from typing import ClassVar

from defenses.base import Defense, Part
from defenses.search import Choice, searched


@dataclass(frozen=True)
class StochasticRounding(Part):
    """Pixels are rounded to one of two neighbouring levels at random, see `RoundingEncoder`.

    Attributes:
        levels: distance of two levels is 1/levels.
    """

    name: ClassVar[str] = "stochastic-rounding"
    slot: ClassVar[str | None] = "encoding"
    levels: int = 2

    def encoder(self) -> str:
        return f"rounding:levels={self.levels}"

    def extra_passes(self) -> float:
        return 0.3


@searched(levels=Choice(("1", "2", "3", "4")))
def sqe(levels: int = 2) -> Defense:
    """Stochastic quantisation encoding: at each step pixels are rounded up or down at random, right on average.

    A noisy network: it is attacked and scored with the noise on. Frames of counts are rounded in units of their scale
    as well, which changes nothing where the levels are the counts.

    Source: arXiv 2610.01558.

    Args:
        levels: 1/levels is the distance of two levels; 2 is the paper's on CIFAR-10, 3 on CIFAR-100. 1 is `poisson`.

    Raises:
        ValueError: fewer than 1.
    """
    if levels < 1:
        raise ValueError(f"sqe: levels must be at least 1, got {levels}")
    return Defense("sqe", (StochasticRounding(levels),))
