"""HART: no chain through the membrane, and gradients averaged over time."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.lif import Trace
from models.neurons import LIF, Replacement
from models.surrogates import Triangular


@dataclass(frozen=True)
class HART:
    """Each step's surrogate gradient alone, then the mean over time steps for every step.

    Between the rate's gradient and the spikes': the previous potential is a constant, so no gradient runs
    back in time (nor through the reset), and a layer's input currents all receive the time-mean.

    Source: Hao et al., ICLR 2024 (hybrid adversarial attack based on rate and temporal information), mode `avg`
    of the official code.
    The authors choose gamma by search on the test set; here it is a parameter.

    Args:
        gamma: half-width of the triangular surrogate, in units of membrane potential.
    """

    name: ClassVar[str] = "hart"
    faithful: ClassVar[bool] = True
    version: ClassVar[int] = 1
    gamma: float = 1.0

    def for_layer(self, layer: LIF) -> Replacement:
        return lambda layer, current: layer.differentiated(current, lambda _: self._backward)

    def _backward(self, trace: Trace, grad: Tensor) -> Tensor:
        slope = Triangular(self.gamma).grad(trace.v - trace.params.v_threshold)
        return slope.mul_(grad).mean(0).expand_as(trace.v)
