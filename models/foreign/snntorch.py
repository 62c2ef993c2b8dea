"""snnTorch's neurons and states; imported only for a network that has some."""

import torch
from snntorch import SpikingNeuron
from torch import nn

from models.foreign.layer import ForeignLayer


def layers(net: nn.Module) -> list[ForeignLayer]:
    """What stands for each spiking neuron of a network; none is whole, since the library runs step by step."""
    return [
        ForeignLayer(module, "spike_grad", _threshold(module))
        for module in net.modules()
        if isinstance(module, SpikingNeuron) and callable(module.spike_grad)
    ]


def reset(net: nn.Module) -> None:
    """Forget the states of all neurons, which their next call makes anew for the batch that it is given."""
    for module in net.modules():
        if isinstance(module, SpikingNeuron):
            # States are buffers that the library does not save; as empty as a new neuron's.
            for name in module._non_persistent_buffers_set:
                held = module._buffers[name]
                if held is not None:
                    module._buffers[name] = torch.zeros(0, device=held.device)
            # The last step's reset, which is a tensor and not a method.
            module.__dict__.pop("reset", None)


def _threshold(module: SpikingNeuron) -> float:
    return float(module.threshold.detach()) if module.threshold.numel() == 1 else 0.0
