"""Spiking VGG-11 in the form that the SNN-robustness literature uses (SNN-RAT, models/VGG.py)."""

from typing import Unpack

from torch import Tensor, nn

from models.net import Encoding, NeuronFactory, SpikingNet
from models.neurons import LIF
from models.time import merged

_LAYOUT: tuple[int | str, ...] = (64, "A", 128, 256, "A", 512, 512, 512, "A", 512, 512)


class VGG11(SpikingNet):
    """Eight spiking convolutions with three average poolings, then 4096-4096-K: ten LIF layers.

    Every convolution is 3x3 with bias, then BN, then the neuron. About 61 M
    parameters on 32x32 images, most of them in the two wide linear layers.

    Args:
        num_classes: K.
        in_shape: (C, H, W); H and W divisible by 8.
        neuron: makes one spiking layer.
        **encoding: see `SpikingNet`.

    Raises:
        ValueError: an image size that three poolings do not divide.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, int, int],
        neuron: NeuronFactory,
        **encoding: Unpack[Encoding],
    ) -> None:
        super().__init__(**encoding)
        channels, height, width = in_shape
        if height % 8 or width % 8:
            raise ValueError(f"vgg11 pools three times and needs sides divisible by 8, got {height}x{width}")
        features: list[nn.Module] = []
        for item in _LAYOUT:
            if isinstance(item, int):
                features += [nn.Sequential(nn.Conv2d(channels, item, 3, 1, 1), nn.BatchNorm2d(item)), neuron()]
                channels = item
            else:
                features.append(nn.AvgPool2d(2))
        self.stem = features[0]
        self.features = nn.ModuleList(features[1:])
        flat = channels * (height // 8) * (width // 8)
        self.classifier = nn.ModuleList([nn.Linear(flat, 4096), neuron(), nn.Linear(4096, 4096), neuron()])
        self.readout = nn.Linear(4096, num_classes)
        self._finish()

    def body(self, current: Tensor, norm: nn.Module | None, steps: int) -> Tensor:
        h = _run(self.features[1:], self.features[0](current, norm, steps))
        return self.readout(_run(self.classifier, h.flatten(2)))  # type: ignore[no-any-return]


def _run(layers: nn.ModuleList, h: Tensor) -> Tensor:
    norm: nn.Module | None = None
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            # A convolution and the normalisation that the next neuron takes in.
            h, norm = merged(layer[0], h), layer[1]
        elif isinstance(layer, LIF):
            h, norm = layer(h, norm), None
        else:
            h = merged(layer, h) if isinstance(layer, nn.AvgPool2d) else layer(h)
    return h
