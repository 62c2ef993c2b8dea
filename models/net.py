"""What every spiking network here shares: normalisation, direct encoding, the time loop, the readout."""

from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor, nn

from models.encoding import Encoder
from models.neurons import LIF, number_layers
from models.time import merged

NeuronFactory = Callable[[], LIF]


class Encoding(TypedDict):
    """How pixels enter a network; the keyword arguments of `SpikingNet`."""

    T: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class SpikingNet(nn.Module):
    """Base of the spiking networks: pixels in, logits out, no state left behind.

    A static image is presented at every time step (direct encoding), unless `encoder` says otherwise. Its first
    layer is therefore the same at each step and is computed once. The prediction
    is the time-mean of the last layer's output.

    A subclass sets `stem` (the layers before the first neuron, applied to the
    input) and implements `body`.

    Args:
        T: number of time steps for static images.
        mean, std: per-channel normalisation, applied inside the model so that
            attacks work in pixel space.
    """

    stem: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, *, T: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        if T < 1:
            raise ValueError(f"T must be at least 1, got {T}")
        self.T = T
        self.encoder: Encoder | None = None
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def body(self, current: Tensor, norm: nn.Module | None, steps: int) -> Tensor:
        """Map the stem's output to per-step logits [T, N, K].

        Args:
            current: before the stem's normalisation, over time [T, N, C, H, W]; [1, N, C, H, W] for a static image.
            norm: that normalisation, which the first neuron takes in; None if the stem ends in none.
            steps: T.
        """
        raise NotImplementedError

    def forward_steps(self, x: Tensor) -> Tensor:
        """Per-step logits [T, N, K] for images [N, C, H, W] or frames [N, T, C, H, W], which set T.

        Raises:
            ValueError: another number of dimensions or of channels.
        """
        channels = self.mean.shape[0]
        if x.dim() not in (4, 5) or x.shape[-3] != channels:
            raise ValueError(
                f"expected images [N, {channels}, H, W] or frames [N, T, {channels}, H, W], got {list(x.shape)}"
            )
        if self.encoder is not None:
            over_time = x.unsqueeze(0) if x.dim() == 4 else x.transpose(0, 1)
            x = self.encoder(over_time, self.T if x.dim() == 4 else x.shape[1]).transpose(0, 1)
        x = (x - self.mean) / self.std
        stem, norm = self._stem()
        if x.dim() == 4:
            return self.body(stem(x).unsqueeze(0), norm, self.T)
        return self.body(merged(stem, x.transpose(0, 1)), norm, x.shape[1])

    def _stem(self) -> tuple[nn.Module, nn.Module | None]:
        """The stem without the normalisation that it may end in, and that."""
        stem = self.stem
        if isinstance(stem, nn.Sequential) and isinstance(stem[-1], nn.BatchNorm1d | nn.BatchNorm2d):
            return stem[:-1], stem[-1]
        return stem, None

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]: the time-mean of `forward_steps`."""
        return self.forward_steps(x).mean(0)

    def _finish(self) -> None:
        """Number the spiking layers and initialise: call last in `__init__`.

        Convolutions: Kaiming normal over fan-out; linear biases 0 (as SNN-RAT).
        """
        number_layers(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
