"""Small convolutional spiking networks for machines without an accelerator."""

from collections.abc import Sequence
from typing import Unpack, cast

from torch import Tensor, nn

from models.net import Encoding, NeuronFactory, SpikingNet
from models.time import image_mean, merged


class SpikingCNN(SpikingNet):
    """Conv3x3 - BN - LIF layers, global average pooling, one linear readout.

    Args:
        num_classes: K.
        in_channels: C of the input.
        widths: channels of each convolution.
        strides: stride of each convolution.
        neuron: makes one spiking layer.
        **encoding: see `SpikingNet`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        widths: Sequence[int],
        strides: Sequence[int],
        neuron: NeuronFactory,
        **encoding: Unpack[Encoding],
    ) -> None:
        super().__init__(**encoding)
        layers = [
            nn.Sequential(nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False), nn.BatchNorm2d(fan_out))
            for fan_in, fan_out, stride in zip([in_channels, *widths], widths, strides, strict=False)
        ]
        self.stem = layers[0]
        self.convs = nn.ModuleList(layers[1:])
        self.neurons = nn.ModuleList(neuron() for _ in widths)
        self.readout = nn.Linear(widths[-1], num_classes)
        self._finish()

    def body(self, current: Tensor, norm: nn.Module | None, steps: int) -> Tensor:
        spikes = self.neurons[0](current, norm, steps)
        for block, neuron in zip(self.convs, list(self.neurons)[1:], strict=True):
            conv, norm = cast(nn.Sequential, block)
            spikes = neuron(merged(conv, spikes), norm)
        return self.readout(image_mean(spikes))  # type: ignore[no-any-return]


def cnn_small(
    num_classes: int,
    in_shape: tuple[int, int, int],
    neuron: NeuronFactory,
    **encoding: Unpack[Encoding],
) -> SpikingCNN:
    """Three spiking convolutions of 32, 64 and 64 channels, strides 1, 2, 1; 56 thousand weights."""
    return SpikingCNN(num_classes, in_shape[0], (32, 64, 64), (1, 2, 1), neuron, **encoding)


def cnn_medium(
    num_classes: int,
    in_shape: tuple[int, int, int],
    neuron: NeuronFactory,
    **encoding: Unpack[Encoding],
) -> SpikingCNN:
    """Three spiking convolutions of 32, 64 and 128 channels, strides 2, 2, 2; for colour images on a CPU."""
    return SpikingCNN(num_classes, in_shape[0], (32, 64, 128), (2, 2, 2), neuron, **encoding)


def cnn_large(
    num_classes: int,
    in_shape: tuple[int, int, int],
    neuron: NeuronFactory,
    **encoding: Unpack[Encoding],
) -> SpikingCNN:
    """Five spiking convolutions of 32, 64, 128, 128 and 256 channels, strides 1, 2, 2, 1, 2; 0.54 million weights."""
    return SpikingCNN(num_classes, in_shape[0], (32, 64, 128, 128, 256), (1, 2, 2, 1, 2), neuron, **encoding)
