"""PDSG: a surrogate as wide as the membrane potentials are spread."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.lif import Backward, Trace, bptt
from models.neurons import LIF, Replacement


@dataclass(frozen=True)
class PDSG:
    """BPTT whose surrogate is the normal density N(sd/2, sd^2) at x = V - v_threshold.

    sd is the standard deviation of the membrane potential over the time steps so far and over space, for
    each channel of a convolution or over a whole linear layer; 1 where that is 0.

    Source: potential-dependent surrogate gradient (Lun et al., arXiv 2503.03272, CVPR 2025). The official code
    takes sd over the batch as well, so that an image's adversarial depends on its neighbours; here it is each
    image's own. It also divides by n - 1, which is undefined for a single value; here by n.
    """

    name: ClassVar[str] = "pdsg"
    faithful: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def for_layer(self, layer: LIF) -> Replacement:
        return lambda layer, current: layer.differentiated(current, self._rule)

    def _rule(self, trace: Trace) -> Backward:
        sd = spread(trace.v)

        def slope(t: int, x: Tensor) -> Tensor:
            z = (x / sd[t]).sub_(0.5)
            return z.square_().mul_(-0.5).exp_().div_(sd[t] * math.sqrt(2 * math.pi))

        return lambda trace, grad: bptt(trace.v, trace.params, slope, grad)


def spread(v: Tensor) -> Tensor:
    """Standard deviation of v [T, N, *] over the steps so far and space, shaped to broadcast over v; never 0."""
    space = tuple(range(3, v.dim())) or (2,)
    count = math.prod(v.shape[axis] for axis in space)
    steps = torch.arange(1, len(v) + 1, device=v.device, dtype=v.dtype).view(-1, *[1] * (v.dim() - 1)) * count
    # From one of the values instead of from 0: where all are equal the result is exactly 0, not rounding noise.
    origin = v[:1]
    for axis in space:
        origin = origin.narrow(axis, 0, 1)
    v = v - origin
    mean = v.sum(space, keepdim=True).cumsum(0) / steps
    square = v.square().sum(space, keepdim=True).cumsum(0) / steps
    sd = (square - mean.square()).clamp_(min=0).sqrt_()
    return torch.where(sd > 0, sd, 1)
