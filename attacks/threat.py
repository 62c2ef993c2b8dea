"""What the attacker may do: the norm, the exact budget, the box."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

Norm = Literal["linf", "l2"]


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

    Raises:
        ValueError: a negative eps, an unknown norm, or an empty box.
    """

    eps: Fraction
    norm: Norm = "linf"
    low: float = 0.0
    high: float = 1.0
    surrogate: str | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"unknown norm '{self.norm}'; choose linf or l2")
        if self.eps < 0:
            raise ValueError(f"eps must not be negative, got {self.eps}")
        if not self.low < self.high:
            raise ValueError(f"the box [{self.low}, {self.high}] is empty")
        if self.norm == "linf" and self.eps > self.high - self.low:
            raise ValueError(
                f"eps {self.eps} is larger than the whole pixel range [{self.low:g}, {self.high:g}]; "
                f"did you mean {self.eps}/255?"
            )


def parse_eps(text: str) -> Fraction:
    """Read eps as an exact number: `8/255`, `0.15` or `0`, in pixel units of images in [0, 1].

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
