"""What of a defense may be tuned: each builder declares the ranges of its hyper-parameters."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Build = TypeVar("Build", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """Any number between two, ends included.

    Attributes:
        low, high: the ends.
        log: whether equal ratios count alike, and not equal differences; then `low` must be positive.

    Raises:
        ValueError: an empty range, an end that is no finite number, or a ratio from 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range needs two finite ends in order, got {self.low} and {self.high}")
        if self.log and not self.low > 0:
            raise ValueError(f"a range of ratios must begin above 0, got {self.low}")


@dataclass(frozen=True)
class Choice:
    """One of a few values, as a user would write them: ("1/255", "2/255").

    Raises:
        ValueError: fewer than two values, or one twice.
    """

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.values)) < 2 or len(set(self.values)) != len(self.values):
            raise ValueError(f"a choice needs two different values or more, got {', '.join(self.values) or 'none'}")


Space = Mapping[str, Range | Choice]


def searched(**space: Range | Choice) -> Callable[[Build], Build]:
    """Declare what may be tuned of the defense that a function builds: `@searched(lam=Range(0.05, 5, log=True))`.

    Args:
        space: a range for each keyword argument that a search may set; the others keep their defaults.
    """

    def declare(build: Build) -> Build:
        build.search = dict(space)  # type: ignore[attr-defined]
        return build

    return declare


def space_of(build: Callable[..., Any]) -> Space:
    """What a builder declares; empty if it declares nothing."""
    return dict(getattr(build, "search", {}))
