"""The same neuron as users of other libraries write it: plain PyTorch, SpikingJelly, snnTorch.

All of them: V = decay U + I, a spike at V >= 1, hard reset to 0, triangular surrogate max(0, 1 - |V - 1|), the
gradient running through the reset.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bench.peers.adapter import load


class _Triangle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = (1 - x.abs()).clamp(min=0)
        return grads[0] * slope


def triangle(x: Tensor) -> Tensor:
    """1 where x >= 0, else 0, with the derivative max(0, 1 - |x|)."""
    return _Triangle.apply(x)  # type: ignore[no-any-return]


class Neuron(nn.Module):
    """A spiking layer inside a plain network.

    Args:
        T: time steps merged into the batch, or 1 where the network is called once for each of them.
        decay: factor on the potential from one step to the next, in (0, 1).
    """

    def __init__(self, T: int, decay: float) -> None:
        super().__init__()
        self.T, self.decay = T, decay

    def begin(self) -> None:
        """Forget the potentials: a new batch begins."""


class PlainLIF(Neuron):
    """A loop over time in ordinary operations, differentiated by autograd; as the official code of SNN-RAT has it."""

    def forward(self, x: Tensor) -> Tensor:
        currents = x.unflatten(0, (self.T, -1))
        potential: Any = 0.0
        spikes = []
        for t in range(self.T):
            potential = self.decay * potential + currents[t]
            spike = triangle(potential - 1.0)
            potential = (1 - spike) * potential
            spikes.append(spike)
        return torch.stack(spikes).flatten(0, 1)


class SpikingJellyLIF(Neuron):
    """SpikingJelly's `LIFNode`, multi-step, its torch implementation on the CPU."""

    def __init__(self, T: int, decay: float) -> None:
        super().__init__(T, decay)
        self.node = _spikingjelly_node(decay)

    def begin(self) -> None:
        self.node.reset()

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.node(x.unflatten(0, (self.T, -1)))
        return spikes.flatten(0, 1)


class SpikingJellyNoisyLIF(SpikingJellyLIF):
    """The same with `torch.randn` noise of variance 0.4 on the potential before the threshold.

    Attributes:
        membrane: potentials before noise and reset of the last call, [T][N, *].
    """

    def __init__(self, T: int, decay: float) -> None:
        super().__init__(T, decay)
        self.membrane: list[Tensor] = []
        self.node = _spikingjelly_noisy_node(decay, self.membrane)

    def begin(self) -> None:
        super().begin()
        self.membrane.clear()


class SnnTorchLIF(Neuron):
    """snnTorch's `Leaky`, called once for each time step as in its tutorials."""

    def __init__(self, T: int, decay: float) -> None:
        super().__init__(T, decay)
        # Without the delay the reset is part of the graph, as it is in the other networks.
        options = {"spike_grad": triangle, "reset_mechanism": "zero", "reset_delay": False}
        self.leaky = load("snntorch").Leaky(beta=decay, threshold=1.0, **options)
        self.potential: Tensor | None = None

    def begin(self) -> None:
        self.potential = self.leaky.reset_mem()

    def forward(self, x: Tensor) -> Tensor:
        spikes, self.potential = self.leaky(x, self.potential)
        return spikes  # type: ignore[no-any-return]


def _spikingjelly_options(decay: float) -> dict[str, Any]:
    surrogate = load("spikingjelly.activation_based.surrogate")
    return {
        "tau": 1.0 / (1.0 - decay),
        "decay_input": False,
        "v_threshold": 1.0,
        "v_reset": 0.0,
        "surrogate_function": surrogate.PiecewiseQuadratic(alpha=1.0),
        "detach_reset": False,
        "step_mode": "m",
    }


def _spikingjelly_node(decay: float) -> Any:
    return load("spikingjelly.activation_based.neuron").LIFNode(**_spikingjelly_options(decay))


def _spikingjelly_noisy_node(decay: float, membrane: list[Tensor]) -> Any:
    base = load("spikingjelly.activation_based.neuron").SimpleLIFNode

    class Noisy(base):  # type: ignore[misc, valid-type]
        v: Tensor

        def neuronal_charge(self, x: Tensor) -> None:
            super().neuronal_charge(x)
            membrane.append(self.v)
            self.v = self.v + 0.4**0.5 * torch.randn_like(self.v)

    return Noisy(**_spikingjelly_options(decay))
