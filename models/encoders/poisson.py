"""Poisson encoding: a pixel's value is the probability of a spike at each step."""

from torch import Tensor

from models.encoding import Encoder
from models.random import ENCODER, uniform_like


def spikes_at(rate: Tensor) -> Tensor:
    """1 with probability `rate`, else 0, drawn for each entry of rates [T, N, *] in [0, 1]; no gradient."""
    return (uniform_like(rate, ENCODER) <= rate).to(rate.dtype)


def straight_through(shown: Tensor, x: Tensor) -> Tensor:
    """`shown`, exactly, with the gradient 1 in `x` of the same shape: the gradient of its mean, where that is x."""
    return shown + (x - x.detach())


class PoissonEncoder(Encoder):
    """S_t = 1[u_t <= x] with u_t uniform for each pixel and step; the gradient goes straight through.

    Its mean is x. Noise is on in training, attack and scoring. The network's normalisation comes after it and maps the
    two values 0 and 1 to two others: papers' codes show the spikes themselves to the first convolution, whose weights
    and normalisation take up the difference everywhere but at the padded border.

    Source: Sharmin et al., ECCV 2020; Mukhoty et al., ICLR 2024 ("Certified Adversarial Robustness for Rate Encoded
    SNNs"), in whose code the spikes have this gradient.
    """

    stochastic = True

    def encode(self, x: Tensor) -> Tensor:
        return straight_through(spikes_at(x.detach()), x)
