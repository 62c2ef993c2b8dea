"""Regularisation of the membrane potentials' distribution."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Defense, Part, Step
from defenses.search import Range, searched
from models.neurons import spiking_layers

_LEAST_VARIANCE = 1e-8


@dataclass(frozen=True)
class PotentialOverlap(Part):
    """eta * mean over layers, steps and channels of Omega = Phi((mu + g) / sd) - Phi((mu - g) / sd).

    mu and sd are mean and standard deviation over batch and place of V - v_threshold, before noise and reset: Omega is
    the share of a normal distribution with these moments that the surrogate gradient's support [-g, g] holds. The
    readout does not spike, so every spiking layer is a hidden one.

    Attributes:
        eta: weight.
        g: half-width of the support.
    """

    name: ClassVar[str] = "potential-overlap"
    observes_membrane: ClassVar[bool] = True
    eta: float = 1.0
    g: float = 1.0

    def extra_passes(self) -> float:
        return 0.2

    def penalty(self, step: Step) -> Tensor:
        layers = spiking_layers(step.model)
        parts = [overlap(v, layers[name].v_threshold, self.g).flatten() for name, v in step.membrane.items()]
        return self.eta * torch.cat(parts).mean()


def overlap(v: Tensor, v_threshold: float | Tensor, g: float) -> Tensor:
    """Omega of each step and channel, [T, C] in [0, 1].

    Args:
        v: membrane potentials [T, N, C, H, W] or [T, N, C].
        v_threshold: threshold, in the same unit.
        g: half-width of the surrogate's support.
    """
    # Moments of thousands of bfloat16 numbers do not come out in bfloat16.
    wide = v if v.dtype == torch.float64 else v.float()
    centred = wide - v_threshold
    over = [1, *range(3, v.dim())]
    mu = centred.mean(over)
    # Of a silent channel the root's gradient would be infinite.
    sd = centred.var(over, correction=0).add(_LEAST_VARIANCE).sqrt()
    inside: Tensor = torch.special.ndtr((mu + g) / sd) - torch.special.ndtr((mu - g) / sd)
    return inside


@searched(eta=Range(0.1, 3, log=True))
def mpd_sgr(eta: float = 1.0, g: float = 1.0) -> Defense:
    """Keep membrane potentials out of the surrogate gradient's support, through the moments of their distribution.

    Source: MPD-SGR, Jiang et al., AAAI 2026 (arXiv 2511.12199). No code is public and we do not know its eta. The
    moments are the batch's (the paper also derives them from threshold-dependent batch normalisation). Weighed too
    much it silences neurons for good: a channel far below the threshold has no overlap, and no gradient. Like `mc` it
    shrinks the gradient that an attacker with the same surrogate sees: judge it by attacks with others.

    Args:
        eta: weight of the penalty; 0.1, 0.3, 1, 3 is a sweep.
        g: half-width of the support, in units of membrane potential; 1 is the triangular surrogate's.

    Raises:
        ValueError: a negative eta, or a g that is not positive.
    """
    if not (eta >= 0 and g > 0):
        raise ValueError(f"mpd-sgr: eta must not be negative and g must be positive, got {eta} and {g}")
    return Defense("mpd-sgr", (PotentialOverlap(eta, g),))
