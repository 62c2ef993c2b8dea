"""What the attacker may do: the norm, the exact budget, the box."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

Norm = Literal["linf", "l2"]
WHOLE = "linf-int"
"""What linf over whole counts is called wherever norms are named."""


def continuous(norm: str) -> Norm:
    """The norm by the name that a threat model goes by, whether it allows whole counts only or any number between."""
    return "linf" if norm == WHOLE else norm  # type: ignore[return-value]


class Box(NamedTuple):
    """What the entries of an input may be.

    Attributes:
        low, high: the range: [0, 1] for images; frames of event counts reach as far as the largest count.
        scale: inputs are whole numbers divided by it (255 for 8-bit images); 0 where they are not.
    """

    low: float = 0.0
    high: float = 1.0
    scale: int = 0


@dataclass(frozen=True)
class Threat:
    """A threat model on inputs in [low, high].

    Attributes:
        eps: budget in the inputs' unit (images lie in [0, 1]), kept as an exact fraction such as 8/255.
        norm: `linf` or `l2`.
        low, high: the box.
        surrogate: written form of the surrogate the attacker differentiates spikes by; None is the model's own.
        grid: candidates are whole counts, `grid` of which make 1.0, and clean inputs are; 0 where any number will do.

    Raises:
        ValueError: a negative eps, an unknown norm, or an empty box; whole counts in another norm than linf, or with
            an eps of less than one count.
    """

    eps: Fraction
    norm: Norm = "linf"
    low: float = 0.0
    high: float = 1.0
    surrogate: str | None = None
    grid: int = 0

    @property
    def reach(self) -> int:
        """With a `grid`: by how many whole counts an entry may change."""
        return math.floor(self.eps * self.grid)

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"unknown norm '{self.norm}'; choose linf or l2")
        if self.eps < 0:
            raise ValueError(f"eps must not be negative, got {self.eps}")
        if not self.low < self.high:
            raise ValueError(f"the box [{self.low}, {self.high}] is empty")
        if self.norm == "linf" and self.eps > self.high - self.low:
            images = self.high == 1
            kind = "pixel range" if images else "range of the frames"
            mend = f"did you mean {self.eps}/255?" if images else "it is in the frames' own unit, see their scale"
            raise ValueError(f"eps {self.eps} is larger than the whole {kind} [{self.low:g}, {self.high:g}]; {mend}")
        if self.grid < 0 or (self.grid and self.norm != "linf"):
            raise ValueError(f"whole counts go with the norm linf, got {self.norm} and a grid of {self.grid}")
        if self.grid and self.eps and not self.reach:
            one = Fraction(1, self.grid)
            raise ValueError(
                f"eps {format_eps(self.eps)} is less than one count, so no whole count can change; "
                f"give at least {one}, or take linf without -int"
            )


def parse_eps(text: str) -> Fraction:
    """Read eps as an exact number: `8/255`, `0.15` or `0`, in pixel units of images in [0, 1], or the frames' unit.

    Raises:
        ValueError: not a number, negative, or not finite. Whether it is too
            large depends on the norm and is checked by `Threat`.
    """
    try:
        eps = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"eps '{text}' is not a number; write it as 8/255 or 0.03") from None
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {text}")
    try:
        float(eps)
    except OverflowError:
        raise ValueError(f"eps {text} is too large for any image") from None
    return eps


def format_eps(eps: Fraction) -> str:
    """eps as people write it, readable by `parse_eps`: 0.15, or in 255ths, or as the fraction that it is."""
    decimal = f"{float(eps):g}"
    if Fraction(decimal) == eps:
        return decimal
    return f"{eps * 255}/255" if (eps * 255).denominator == 1 else str(eps)
