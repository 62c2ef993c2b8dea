"""Stochastic rounding of pixels to a few levels, anew at each step."""

from torch import Tensor

from models.encoders.poisson import spikes_at, straight_through
from models.encoding import Encoder


class RoundingEncoder(Encoder):
    """ceil(N x) / N with probability frac(N x), else floor(N x) / N; the gradient goes straight through.

    Its mean is x. N = 1 is the Poisson encoding, draw by draw; N -> infinity is the direct one.

    Source: stochastic quantisation encoding, arXiv 2610.01558 (N = 2 on CIFAR-10, 3 on CIFAR-100).

    Args:
        levels: N, at least 1.

    Raises:
        ValueError: levels that are no whole number from 1.
    """

    stochastic = True

    def __init__(self, levels: float = 2) -> None:
        super().__init__()
        if levels < 1 or levels != int(levels):
            raise ValueError(f"levels must be a whole number from 1, got {levels:g}")
        self.levels = int(levels)

    def encode(self, x: Tensor) -> Tensor:
        scaled = x.detach() * self.levels
        below = scaled.floor()
        return straight_through((below + spikes_at(scaled - below)) / self.levels, x)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"
