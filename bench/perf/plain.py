"""The architectures in plain PyTorch, as official code of SNN-robustness papers writes them.

Time is merged into the batch for convolutions and normalisation, the static image is presented T times, memory is in
the default layout, and the neuron is another library's or a loop. Modules are named as ours: weights carry over.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.perf.neurons import Neuron
from bench.spec import ModelSpec

CNNS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "cnn-small": ((32, 64, 64), (1, 2, 1)),
    "cnn-medium": ((32, 64, 128), (2, 2, 2)),
    "cnn-large": ((32, 64, 128, 128, 256), (1, 2, 2, 1, 2)),
}
"""Channels and strides of each convolution."""
MODELS = ("wrn16-4", "vgg11", *CNNS)
_VGG = (64, 0, 128, 256, 0, 512, 512, 512, 0, 512, 512)


class PlainNet(nn.Module):
    """Base of the plain networks.

    Args:
        spec: the network that it is a copy of.
        neuron: class of its spiking layers.
        looped: call the network once for each time step, instead of merging time into the batch.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec, neuron: type[Neuron], looped: bool) -> None:
        super().__init__()
        self.T, self.looped = spec.T, looped
        self._neuron, self._decay = neuron, spec.neuron.decay
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1))

    def neuron(self) -> Neuron:
        """A fresh spiking layer."""
        return self._neuron(1 if self.looped else self.T, self._decay)

    def body(self, x: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] to logits [B, K]; B is N, or T N with time merged into the batch."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, C, H, W]: the mean over time."""
        for module in self.modules():
            if isinstance(module, Neuron):
                module.begin()
        x = (x - self.mean) / self.std
        if self.looped:
            return torch.stack([self.body(x) for _ in range(self.T)]).mean(0)
        merged = x.repeat(self.T, 1, 1, 1)
        logits: Tensor = self.body(merged).unflatten(0, (self.T, -1)).mean(0)
        return logits

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights of our network.

        Raises:
            BenchError: a tensor has no place here, or a layer gets none.
        """
        try:
            result = self.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise BenchError(f"the weights do not fit this network: {' '.join(str(error).split())}") from error
        inside = tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, Neuron))
        missing = [name for name in result.missing_keys if not name.startswith(inside)]
        if missing or result.unexpected_keys:
            wrong = ", ".join([*missing, *result.unexpected_keys][:3])
            raise BenchError(f"the plain copy of the network is not of the same parts: {wrong}")


class _Combine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.coefficients[0] * a + self.coefficients[1] * b


class _Block(nn.Module):
    def __init__(self, net: PlainNet, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.neuron1 = nn.BatchNorm2d(fan_in), net.neuron()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.bn2, self.neuron2 = nn.BatchNorm2d(fan_out), net.neuron()
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False) if fan_in != fan_out else None
        self.combine = _Combine()

    def forward(self, x: Tensor) -> Tensor:
        a = self.neuron1(self.bn1(x))
        h = self.conv2(self.neuron2(self.bn2(self.conv1(a))))
        return self.combine(x if self.shortcut is None else self.shortcut(a), h)  # type: ignore[no-any-return]


class PlainWRN(PlainNet):
    """WRN-16-4."""

    def __init__(self, spec: ModelSpec, neuron: type[Neuron], looped: bool) -> None:
        super().__init__(spec, neuron, looped)
        self.stem = nn.Conv2d(spec.in_shape[0], 16, 3, 1, 1, bias=False)
        widths, strides = (16, 64, 64, 128, 128, 256, 256), (1, 1, 2, 1, 2, 1)
        blocks = (_Block(self, a, b, s) for a, b, s in zip(widths, widths[1:], strides, strict=False))
        self.blocks = nn.Sequential(*blocks)
        self.bn, self.last = nn.BatchNorm2d(256), self.neuron()
        self.readout = nn.Linear(256, spec.num_classes)

    def body(self, x: Tensor) -> Tensor:
        h = self.last(self.bn(self.blocks(self.stem(x))))
        return self.readout(h.mean((-2, -1)))  # type: ignore[no-any-return]


class PlainVGG(PlainNet):
    """VGG-11."""

    def __init__(self, spec: ModelSpec, neuron: type[Neuron], looped: bool) -> None:
        super().__init__(spec, neuron, looped)
        channels, height, width = spec.in_shape
        layers: list[nn.Module] = []
        for out in _VGG:
            if out:
                convolution = nn.Sequential(nn.Conv2d(channels, out, 3, 1, 1), nn.BatchNorm2d(out))
                layers += [convolution, self.neuron()]
                channels = out
            else:
                layers.append(nn.AvgPool2d(2))
        self.stem, self.features = layers[0], nn.ModuleList(layers[1:])
        flat = channels * (height // 8) * (width // 8)
        wide = [nn.Linear(flat, 4096), self.neuron(), nn.Linear(4096, 4096), self.neuron()]
        self.classifier = nn.ModuleList(wide)
        self.readout = nn.Linear(4096, spec.num_classes)

    def body(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for layer in self.features:
            h = layer(h)
        h = h.flatten(1)
        for layer in self.classifier:
            h = layer(h)
        return self.readout(h)  # type: ignore[no-any-return]


class PlainCNN(PlainNet):
    """The small convolutional networks."""

    def __init__(self, spec: ModelSpec, neuron: type[Neuron], looped: bool) -> None:
        super().__init__(spec, neuron, looped)
        widths, strides = CNNS[spec.name]
        fans = zip([spec.in_shape[0], *widths], widths, strides, strict=False)
        layers = [nn.Sequential(nn.Conv2d(a, b, 3, s, 1, bias=False), nn.BatchNorm2d(b)) for a, b, s in fans]
        self.stem, self.convs = layers[0], nn.ModuleList(layers[1:])
        self.neurons = nn.ModuleList(self.neuron() for _ in widths)
        self.readout = nn.Linear(widths[-1], spec.num_classes)

    def body(self, x: Tensor) -> Tensor:
        h = self.neurons[0](self.stem(x))
        for convolution, neuron in zip(self.convs, list(self.neurons)[1:], strict=True):
            h = neuron(convolution(h))
        return self.readout(h.mean((-2, -1)))  # type: ignore[no-any-return]


def build_plain(spec: ModelSpec, neuron: type[Neuron], looped: bool) -> PlainNet:
    """A plain copy of an architecture, with fresh weights.

    Raises:
        BenchError: no plain copy of it is written.
    """
    kinds: dict[str, type[PlainNet]] = {"wrn16-4": PlainWRN, "vgg11": PlainVGG, **dict.fromkeys(CNNS, PlainCNN)}
    if spec.name not in kinds:
        raise BenchError(f"speed is compared on {', '.join(MODELS)}, not on '{spec.name}'")
    return kinds[spec.name](spec, neuron, looped)
