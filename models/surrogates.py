"""Surrogate derivatives of the spike, dS/dV as a function of x = V - v_threshold.

The spike is a step, whose derivative is zero almost everywhere; training and
gradient attacks replace it by one of these bumps. Every shape here has area 1,
so that a change of shape is not also a change of gradient scale.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Surrogate(Protocol):
    """A replacement for the derivative of the spike: any hashable value with a `grad`."""

    name: ClassVar[str]

    def grad(self, x: Tensor) -> Tensor:
        """dS/dV at `x = V - v_threshold` (any shape); returns a new tensor of that shape."""
        ...


@dataclass(frozen=True)
class Triangular:
    """max(0, gamma - |x|) / gamma^2: peak 1/gamma, support |x| < gamma. The field's default, gamma = 1.

    Source: SNN-RAT (Ding et al., NeurIPS 2022) and most later work.
    """

    name: ClassVar[str] = "triangular"
    gamma: float = 1.0

    def grad(self, x: Tensor) -> Tensor:
        return x.abs().neg_().add_(self.gamma).clamp_(min=0).mul_(1 / self.gamma**2)


@dataclass(frozen=True)
class Rectangular:
    """1/gamma where |x| < gamma/2, else 0.

    Source: STBP, Wu et al. 2018.
    """

    name: ClassVar[str] = "rectangular"
    gamma: float = 1.0

    def grad(self, x: Tensor) -> Tensor:
        return (x.abs() < self.gamma / 2).to(x.dtype).mul_(1 / self.gamma)


@dataclass(frozen=True)
class ArcTan:
    """(alpha/2) / (1 + (pi/2 alpha x)^2): heavy tails, never exactly zero.

    Source: Fang et al. 2021.
    """

    name: ClassVar[str] = "arctan"
    alpha: float = 2.0

    def grad(self, x: Tensor) -> Tensor:
        return x.mul(math.pi / 2 * self.alpha).square_().add_(1).reciprocal_().mul_(self.alpha / 2)


@dataclass(frozen=True)
class Sigmoid:
    """alpha s (1 - s) with s = sigmoid(alpha x).

    Source: none; the derivative of the sigmoid, in general use.
    """

    name: ClassVar[str] = "sigmoid"
    alpha: float = 4.0

    def grad(self, x: Tensor) -> Tensor:
        s = torch.sigmoid(self.alpha * x)
        return s.mul(1 - s).mul_(self.alpha)


@dataclass(frozen=True)
class Gaussian:
    """Normal density of standard deviation 1/alpha.

    With alpha = 1/sigma this is the exact derivative of a noisy neuron's firing
    probability in its noise-free membrane potential.

    Source: none; closed form.
    """

    name: ClassVar[str] = "gaussian"
    alpha: float = 1.0

    def grad(self, x: Tensor) -> Tensor:
        return x.mul(self.alpha).square_().mul_(-0.5).exp_().mul_(self.alpha / math.sqrt(2 * math.pi))


SURROGATES: dict[str, Callable[..., Surrogate]] = {
    cls.name: cls for cls in (Triangular, Rectangular, ArcTan, Sigmoid, Gaussian)
}


def parse_surrogate(text: str) -> Surrogate:
    """Read a surrogate from its written form, `NAME` or `NAME:SHARPNESS=VALUE`.

    Args:
        text: for example `triangular`, `triangular:gamma=2`, `arctan:alpha=4`.

    Raises:
        ValueError: unknown name or parameter, or a sharpness that is not a positive number.
    """
    name, _, rest = text.partition(":")
    if name not in SURROGATES:
        raise ValueError(f"unknown surrogate '{name}'; choose from {', '.join(SURROGATES)}")
    cls = SURROGATES[name]
    parameter = fields(cls)[0].name  # type: ignore[arg-type]
    if not rest:
        return cls()
    key, _, value = rest.partition("=")
    if key != parameter:
        raise ValueError(f"surrogate '{name}' has one parameter, '{parameter}', not '{key}'")
    try:
        sharpness = float(value)
    except ValueError:
        raise ValueError(f"surrogate '{name}': {parameter}={value} is not a number") from None
    if not (0 < sharpness < math.inf):
        raise ValueError(f"surrogate '{name}': {parameter} must be positive and finite, got {value}")
    return cls(sharpness)


def format_surrogate(surrogate: Surrogate) -> str:
    """The written form that `parse_surrogate` reads back, with its sharpness always stated."""
    parameters = ",".join(f"{key}={value!r}" for key, value in asdict(surrogate).items())  # type: ignore[call-overload]
    return f"{surrogate.name}:{parameters}"
