"""ASSG: a surrogate whose sharpness follows each neuron during the attack."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

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

    With x = V - v_threshold, at each new point of the attack M <- beta M + (1 - beta) |x| from M = 1, then
    D <- beta D + (1 - beta) ||x| - M| from D = 0 with the new M, and alpha = width / (M + r D + 1e-4): the
    surrogate is just wide enough to reach where this neuron's potential usually is, so its gradient neither
    vanishes nor blurs.

    Source: Towards Reliable Evaluation of Adversarial Robustness for SNNs, arXiv 2512.22522 (CVPR 2026). Further
    draws of a noisy model at one point use the state of the first, as there. The reset is differentiated as the
    layer says; the authors' neuron detaches it. The authors' `a` is tolerance / 2 for the arctan and the width
    itself for other shapes, and is found by search on the test set.

    Args:
        tolerance: accepted degree of vanishing A in (0, 1): the share of the surrogate's mass inside |x|.
        shape: a surrogate's name; `width` is its integral's inverse at A.
        beta: decay of both means, in (0, 1).
        r: how many deviations beyond the mean the surrogate reaches, not negative.

    Raises:
        ValueError: tolerance, beta or r out of range, or an unknown shape.
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
        if not 0 <= self.r < math.inf:
            raise ValueError(f"gradient 'assg': r must be finite and not negative, got {self.r}")
        if self.shape not in _SHAPES:
            raise ValueError(f"gradient 'assg': unknown shape '{self.shape}'; choose from {', '.join(_SHAPES)}")

    def for_layer(self, layer: LIF) -> Replacement:
        state = _Sharpness(self)
        return lambda layer, current: layer.differentiated(current, state.rule)


class _Moments(NamedTuple):
    mean: Tensor
    deviation: Tensor


class _Sharpness:
    """One layer's running means, for the time of one attack run."""

    def __init__(self, settings: ASSG) -> None:
        self.settings = settings
        self.shape = _SHAPES[settings.shape]
        self.width = self.shape.width(settings.tolerance)
        self.point: object | None = None
        self.before: _Moments | None = None
        self.now: _Moments | None = None

    def rule(self, trace: Trace) -> Backward:
        estimation = active_estimation()
        batch = estimation.batch or trace.v.shape[1]
        if estimation.new_point:
            self._observe((trace.v - trace.params.v_threshold)[:, :batch].abs_(), estimation.point)
        assert self.now is not None
        alpha = self.width / (self.now.mean + self.settings.r * self.now.deviation + _FLOOR)
        copies = trace.v.shape[1] // batch
        if copies > 1:
            alpha = alpha.repeat(1, copies, *[1] * (alpha.dim() - 2))
        return lambda trace, grad: bptt(trace.v, trace.params, lambda t, x: self.shape.build(alpha[t]).grad(x), grad)

    def _observe(self, distance: Tensor, point: object | None) -> None:
        # A first pass that ran out of memory is repeated at its point: the means then move from where they stood.
        if point is None or point is not self.point:
            self.point, self.before = point, self.now
        mean, deviation = self.before or (torch.ones_like(distance), torch.zeros_like(distance))
        if mean.shape != distance.shape:
            raise ValueError(
                "gradient 'assg' follows each image through the attack, and this attack changes its batch on the way"
            )
        beta = self.settings.beta
        mean = mean * beta + distance * (1 - beta)
        self.now = _Moments(mean, deviation * beta + (distance - mean).abs_() * (1 - beta))
