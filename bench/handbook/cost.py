"""Costs as formulas in the number of steps."""

from attacks.base import Attack

_TRIED = range(1, 9)


def cost_of(attack: Attack) -> tuple[str, str]:
    """Forward and backward passes for an image, as plans reckon with: ("K + 1", "K").

    Args:
        attack: any; without steps the two are numbers.
    """
    if not attack.takes_steps:
        return tuple(f"{count:,}" for count in attack.cost(0))  # type: ignore[return-value]
    forwards, backwards = zip(*(attack.cost(steps) for steps in _TRIED), strict=True)
    return polynomial(forwards), polynomial(backwards)


def polynomial(values: tuple[int, ...]) -> str:
    """The polynomial in K of degree two or less through the values at K = 1, 2, 3, ...; the values if there is none."""
    first, second, third = values[:3]
    twice = third - 2 * second + first
    square, rest = divmod(twice, 2)
    linear = second - first - 3 * square
    constant = first - square - linear
    if rest or any(square * k * k + linear * k + constant != value for k, value in enumerate(values, 1)):
        return f"{values[0]}, {values[1]}, {values[2]}, ... for K = 1, 2, 3, ..."
    written = ""
    for factor, power in ((square, " K²"), (linear, " K"), (constant, "")):
        if factor:
            size = str(abs(factor)) if abs(factor) > 1 or not power else ""
            sign = (" + " if factor > 0 else " - ") if written else ("" if factor > 0 else "-")
            written += f"{sign}{size}{power if size else power.strip()}"
    return written or "0"
