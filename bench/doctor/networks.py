"""Small spiking networks to try things on."""

import torch
from torch import Tensor, nn

from models.cnn import SpikingCNN
from models.neurons import NeuronSpec

QUIET, NOISY = NeuronSpec(), NeuronSpec("nlif", params=(("noise_var", 0.4),))


def spiking_network(neuron: NeuronSpec, device: torch.device, dtype: torch.dtype = torch.float32) -> SpikingCNN:
    """Two spiking convolutions on images [N, 1, 8, 8], 4 classes, the same weights each time, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SpikingCNN(4, 1, (16, 16), (1, 2), neuron.build, T=4, mean=(0.5,), std=(0.25,))
    # Fresh weights barely reach the threshold; a silent network would make every comparison empty.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 4.0)
    return model.to(device, dtype).eval()


def images(n: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random images [n, 1, 8, 8] in [0, 1]."""
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype).to(device)
