"""ASSG: a surrogate whose sharpness follows each neuron during the attack."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.gradients.estimation import active_estimation
from models.lif import Backward, Trace, bptt
from models.neurons import LIF, Replacement
from models.surrogates import ArcTan, Gaussian, Rectangular, Sigmoid, Surrogate, Triangular

_FLOOR = 1e-4


@dataclass(frozen=True)
class _Shape:
    """A surrogate by sharpness: `width(tolerance)` is where its integral over [-x, x] reaches the tolerance."""

    build: Callable[[Tensor], Surrogate]
    width: Callable[[float], float]


def _normal_quantile(p: float) -> float:
    return math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * p - 1, dtype=torch.float64)))


# The surrogates take any number as sharpness, and here it is a tensor with a value for each neuron.
_SHAPES: dict[str, _Shape] = {
    "arctan": _Shape(lambda alpha: ArcTan(alpha), lambda a: 2 * math.tan(math.pi * a / 2) / math.pi),  # type: ignore[arg-type]
    "rectangular": _Shape(lambda alpha: Rectangular(2 / alpha), lambda a: a),  # type: ignore[arg-type]
    "triangular": _Shape(lambda alpha: Triangular(1 / alpha), lambda a: 1 - math.sqrt(1 - a)),  # type: ignore[arg-type]
    "sigmoid": _Shape(lambda alpha: Sigmoid(alpha), lambda a: math.log((1 + a) / (1 - a))),  # type: ignore[arg-type]
    "gaussian": _Shape(lambda alpha: Gaussian(alpha), lambda a: _normal_quantile((1 + a) / 2)),  # type: ignore[arg-type]
}


@dataclass(frozen=True)
class ASSG:
    """BPTT with a sharpness for every neuron, time step and image, adapted from step to step of the attack.

    With x = V - v_threshold, M follows |x| and D its deviation by exponential means over the attack's steps,
    and alpha = width / (M + r D): the surrogate is just wide enough to reach where this neuron's potential
    usually is, so its gradient neither vanishes nor blurs.

    Source: Towards Reliable Evaluation of Adversarial Robustness for SNNs, arXiv 2512.22522 (CVPR 2026). Further
    draws of a noisy model at one point use the state of the first, as there.

    Args:
        tolerance: accepted degree of vanishing A in (0, 1): the share of the surrogate's mass inside |x|.
        shape: a surrogate's name; `width` is its integral's inverse at A.
        beta: decay of both means.
        r: how many deviations beyond the mean the surrogate reaches.

    Raises:
        ValueError: tolerance or beta outside (0, 1), or an unknown shape.
    """

    name: ClassVar[str] = "assg"
    faithful: ClassVar[bool] = True
    version: ClassVar[int] = 1
    tolerance: float = 0.85
    shape: str = "arctan"
    beta: float = 0.9
    r: float = 1.5

    def __post_init__(self) -> None:
        if not (0 < self.tolerance < 1 and 0 < self.beta < 1):
            raise ValueError(f"gradient 'assg': tolerance {self.tolerance} and beta {self.beta} must lie in (0, 1)")
        if self.shape not in _SHAPES:
            raise ValueError(f"gradient 'assg': unknown shape '{self.shape}'; choose from {', '.join(_SHAPES)}")

    def for_layer(self, layer: LIF) -> Replacement:
        state = _Sharpness(self)
        return lambda layer, current: layer.differentiated(current, state.rule)


class _Sharpness:
    """One layer's running means, for the time of one attack run."""

    def __init__(self, settings: ASSG) -> None:
        self.settings = settings
        self.shape = _SHAPES[settings.shape]
        self.width = self.shape.width(settings.tolerance)
        self.mean: Tensor | None = None
        self.deviation: Tensor | None = None

    def rule(self, trace: Trace) -> Backward:
        estimation = active_estimation()
        batch = estimation.batch or trace.v.shape[1]
        if estimation.new_point:
            self._observe((trace.v[:, :batch] - trace.params.v_threshold).abs_())
        assert self.mean is not None and self.deviation is not None
        alpha = self.width / (self.mean + self.settings.r * self.deviation + _FLOOR)
        copies = trace.v.shape[1] // batch
        if copies > 1:
            alpha = alpha.repeat(1, copies, *[1] * (alpha.dim() - 2))
        return lambda trace, grad: bptt(
            trace.v, trace.params, lambda t, x: self.shape.build(alpha[t]).grad(x), grad
        )

    def _observe(self, distance: Tensor) -> None:
        if self.mean is None or self.deviation is None:
            self.mean, self.deviation = torch.ones_like(distance), torch.zeros_like(distance)
        if self.mean.shape != distance.shape:
            raise ValueError(
                "gradient 'assg' follows each image through the attack, and this attack changes its batch on the way"
            )
        beta = self.settings.beta
        self.mean = self.mean * beta + distance * (1 - beta)
        self.deviation = self.deviation * beta + (distance - self.mean).abs_() * (1 - beta)
