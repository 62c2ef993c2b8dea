"""Spiking perceptrons so small that their exact robust accuracy can be computed."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Unpack, cast

from torch import Tensor, nn

from models.net import Encoding, NeuronFactory, SpikingNet
from models.neurons import LIF
from models.time import merged


class SpikingMLP(SpikingNet):
    """Linear - BN - LIF layers and one linear readout, on the flattened image.

    Without the normalisation half the neurons of a layer this narrow never fire.


    Args:
        num_classes: K.
        in_shape: (C, H, W).
        widths: neurons of each spiking layer, at least one layer.
        neuron: makes one spiking layer.
        **encoding: see `SpikingNet`.

    Raises:
        ValueError: no layer, or one without neurons.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, int, int],
        widths: Sequence[int],
        neuron: NeuronFactory,
        **encoding: Unpack[Encoding],
    ) -> None:
        super().__init__(**encoding)
        if not widths or min(widths) < 1:
            raise ValueError(f"a spiking perceptron needs layers of at least one neuron, got widths {list(widths)}")
        self.stem = nn.Sequential(nn.Flatten(), *_linear(math.prod(in_shape), widths[0]))
        self.hidden = nn.ModuleList(nn.Sequential(*_linear(a, b)) for a, b in pairwise(widths))
        self.neurons = nn.ModuleList(neuron() for _ in widths)
        self.readout = nn.Linear(widths[-1], num_classes)
        self._finish()

    def layers(self) -> list[tuple[nn.Linear, nn.BatchNorm1d, LIF]]:
        """The modules of each spiking layer, in order."""
        stem = cast(nn.Sequential, self.stem)
        linears = [stem[1:], *self.hidden]
        return [(*cast(Any, linear), neuron) for linear, neuron in zip(linears, self.neurons, strict=True)]

    def body(self, current: Tensor, norm: nn.Module | None, steps: int) -> Tensor:
        spikes = self.neurons[0](current, norm, steps)
        for block, neuron in zip(self.hidden, list(self.neurons)[1:], strict=True):
            linear, norm = cast(nn.Sequential, block)
            spikes = neuron(merged(linear, spikes), norm)
        return self.readout(spikes)  # type: ignore[no-any-return]


def _linear(fan_in: int, fan_out: int) -> tuple[nn.Linear, nn.BatchNorm1d]:
    return nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out)


def tiny(
    num_classes: int,
    in_shape: tuple[int, int, int],
    neuron: NeuronFactory,
    **encoding: Unpack[Encoding],
) -> SpikingMLP:
    """Two spiking layers of 12 and 16 neurons: `bench truth` finds its exact robust accuracy."""
    return SpikingMLP(num_classes, in_shape, (12, 16), neuron, **encoding)


def tiny_wide(
    num_classes: int,
    in_shape: tuple[int, int, int],
    neuron: NeuronFactory,
    **encoding: Unpack[Encoding],
) -> SpikingMLP:
    """As `tiny`, with 24 and 16 neurons: exact robust accuracy takes up to minutes an image."""
    return SpikingMLP(num_classes, in_shape, (24, 16), neuron, **encoding)
