"""Networks of SpikingJelly and snnTorch as their users write them, with weights that make them spike."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def excited(net: nn.Module, factor: float) -> nn.Module:
    """The same network in eval mode with larger weights: fresh ones hardly reach a threshold."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    return net.eval()


def jelly(make: Callable[[], nn.Module], mode: str, loops: bool = True, steps: int = 4) -> nn.Module:
    """A convolutional network of SpikingJelly in step mode `m` or `s`, that loops over time itself or does not."""
    from spikingjelly.activation_based import functional, layer

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                layer.Conv2d(1, 4, 3, padding=1, bias=False), layer.BatchNorm2d(4), make(),
                layer.MaxPool2d(2, 2), layer.Flatten(), layer.Linear(64, 10), make(),
            )  # fmt: skip
            functional.set_step_mode(self, mode)

        def forward(self, x: Tensor) -> Any:
            if not loops:
                return self.body(x)
            if mode == "m":
                return self.body(x.unsqueeze(0).expand(steps, *x.shape)).mean(0)
            return torch.stack([self.body(x) for _ in range(steps)]).mean(0)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return excited(Net(), 5.0)


def torched(make: Callable[[], nn.Module], steps: int = 5) -> nn.Module:
    """snnTorch's convolutional network, with its loop over time and its two recordings."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)
            self.lif1 = make()
            self.fc = nn.Linear(64, 10)
            self.lif2 = make()

        def forward(self, x: Tensor) -> Any:
            first, second = (_state(layer.reset_mem()) for layer in (self.lif1, self.lif2))
            spikes, potentials = [], []
            for _ in range(steps):
                s, *first = self.lif1(nn.functional.max_pool2d(self.conv(x), 2), *first)
                s, *second = self.lif2(self.fc(s.flatten(1)), *second)
                spikes.append(s)
                potentials.append(second[-1])
            return torch.stack(spikes), torch.stack(potentials)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return excited(Net(), 4.0)


def _state(states: Any) -> list[Tensor]:
    return list(states) if isinstance(states, tuple) else [states]
