"""Random small networks for the tests of ground truth."""

import torch
from torch import nn

from models.neurons import NeuronSpec
from models.tiny import SpikingMLP


def random_network(
    seed: int,
    widths: tuple[int, ...] = (3, 4),
    pixels: int = 3,
    *,
    T: int = 4,
    decay: float = 0.5,
    classes: int = 3,
    neuron: NeuronSpec | None = None,
) -> SpikingMLP:
    """A network with enough drive that its neurons fire all kinds of trains."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    spec = neuron or NeuronSpec(decay=decay)
    with torch.random.fork_rng(), torch.no_grad():
        model = SpikingMLP(classes, (1, 1, pixels), widths, spec.build, T=T, mean=(0.4,), std=(0.3,))
        for module in model.modules():
            if isinstance(module, nn.Linear):
                uniform(module.weight, -2, 2)
                uniform(module.bias, -0.5, 0.5)
            elif isinstance(module, nn.BatchNorm1d):
                assert module.running_mean is not None and module.running_var is not None
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.5, 2)
                uniform(module.weight, 0.5, 1)
                uniform(module.bias, 0.2, 1)
    return model.eval()


def random_images(seed: int, n: int, pixels: int) -> torch.Tensor:
    """Images [n, 1, 1, pixels] in [0, 1]."""
    return torch.rand(n, 1, 1, pixels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
