"""How pixels become what is shown at each time step: part of the network, so that attacks go through it."""

import importlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.lif import repeated


class Encoder(nn.Module):
    """Base of the encodings of a static image, or of each frame of a recording, over time.

    A subclass implements `encode`; its keyword arguments are numbers and make its written form.

    Attributes:
        stochastic: whether two calls on one image may differ by design.
        mean: of each channel's pixels, as the network subtracts it after the encoding, [C, 1, 1].
    """

    stochastic = False
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        # The network keeps its own among its weights.
        self.register_buffer("mean", torch.zeros(1, 1, 1), persistent=False)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """What is shown at each step, [T, N, C, H, W].

        Args:
            x: pixels over time [T, N, C, H, W]; [1, N, C, H, W] for a static image.
            steps: T.
        """
        return self.encode(repeated(x, steps))

    def encode(self, x: Tensor) -> Tensor:
        """Map pixels [T, N, C, H, W] to what is shown, of the same shape, differentiably."""
        raise NotImplementedError


ENCODERS: dict[str, str] = {
    "frequency": "models.encoders.frequency:FrequencyEncoder",
    "poisson": "models.encoders.poisson:PoissonEncoder",
    "signed-rate": "models.encoders.signed_rate:SignedRateEncoder",
    "rounding": "models.encoders.rounding:RoundingEncoder",
}
"""Where each encoding lives, `module:class`; imported when it is built."""


def build_encoder(text: str, mean: Sequence[float] = (0.0,)) -> Encoder | None:
    """The encoder of a written form: `poisson`, `frequency:step=0.125`; None for an empty one, the direct encoding.

    Args:
        text: name and parameters.
        mean: of each channel's pixels, as the network has it.

    Raises:
        ValueError: an unknown name, or parameters that it refuses.
    """
    if not text:
        return None
    name, _, rest = text.partition(":")
    if name not in ENCODERS:
        raise ValueError(f"unknown encoding '{name}'; choose from {', '.join(ENCODERS)}")
    module, _, cls = ENCODERS[name].partition(":")
    given = dict(item.split("=", 1) for item in rest.split(",") if item)
    encoder: Encoder = getattr(importlib.import_module(module), cls)(**{key: float(v) for key, v in given.items()})
    encoder.mean = torch.tensor(mean).view(-1, 1, 1)
    return encoder
