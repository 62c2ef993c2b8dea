"""Gradients of firing rates: the whole train's rate is differentiated, not the single spike."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.lif import Trace, in_rates
from models.neurons import LIF, Replacement


@dataclass(frozen=True)
class BPTR:
    """Straight through a layer where the neuron fired at all: dI[t] = dS[t] if the train holds a spike, else 0.

    Source: backward pass through rate, SNN-RAT (Ding et al., NeurIPS 2022), whose forward pass there is a
    neuron without leak; here it is the network's own.
    """

    name: ClassVar[str] = "bptr"
    faithful: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def for_layer(self, layer: LIF) -> Replacement:
        return lambda layer, current: layer.differentiated(current, lambda _: _through_active)


def _through_active(trace: Trace, grad: Tensor) -> Tensor:
    return grad * (trace.spikes.amax(0) > 0)


@dataclass(frozen=True)
class RGA:
    """The derivative of a LIF neuron's firing rate in its mean input current.

    With c the time-mean of the current in units of the threshold and tau the decay, the rate's slope in c is
    (1 - gamma + gamma tau) / (1 + tau) for 1 - tau <= c <= 2, gamma for 0 <= c < 1 - tau, and 0 elsewhere: the
    rate rises in two straight pieces from 0 at c = 0 to 1 at c = 2.

    Source: rate gradient approximation attack (Bu et al., CVPR 2023), layer form of the official code, which
    knows the threshold 1 only and adds the two slopes up at c = 1 - tau exactly; here the steeper piece
    begins there.

    Args:
        gamma: slope below the current at which the neuron fires at all, in (0, 1].

    Raises:
        ValueError: gamma outside (0, 1].
    """

    name: ClassVar[str] = "rga"
    faithful: ClassVar[bool] = True
    version: ClassVar[int] = 1
    gamma: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gradient 'rga': gamma must lie in (0, 1], got {self.gamma}")

    def for_layer(self, layer: LIF) -> Replacement:
        return lambda layer, current: layer.differentiated(current, lambda _: self._backward)

    def _backward(self, trace: Trace, grad: Tensor) -> Tensor:
        threshold, decay = in_rates(trace.params)
        mean = trace.current.mean(0) / threshold
        firing = (1 - self.gamma + self.gamma * decay) / (1 + decay)
        slope = torch.where(mean >= 1 - decay, firing, torch.full_like(mean, self.gamma))
        return grad * slope.masked_fill_((mean < 0) | (mean > 2), 0).div_(threshold)
