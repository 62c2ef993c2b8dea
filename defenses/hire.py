"""Crafted input noise that changes within the time steps of one presentation."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy
from attacks.projections import ball
from attacks.threat import Threat
from defenses.base import Defense, Part, Setting
from defenses.search import Choice, searched
from models.random import CounterRNG


@dataclass(frozen=True)
class CraftedNoise(Part):
    """Train on frames: an image, and from one period of the time steps to the next noise that a sign step adds to.

    The T steps are cut into `periods` of equal length (the last is longer). The first period is shown the image. The
    noise of the next is the noise of the one before plus alpha times the sign of the loss's gradient in that period's
    frames, summed over them, kept within eps; the gradient is of a presentation in which the noise stays as it is.

    Attributes:
        eps: largest noise in pixel units; None takes the data set's for training (2/255 for CIFAR).
        periods: of the time steps, at least 2.
        alpha: size of a step; None is eps.
        T: time steps of static images, the network's.
        high: the largest value that an input may take, the data set's; the least is 0.
    """

    name: ClassVar[str] = "crafted-noise"
    slot: ClassVar[str | None] = "input"
    eps: Fraction | None = None
    periods: int = 2
    alpha: Fraction | None = None
    T: int = 4
    high: float = 1.0

    def settled(self, setting: Setting) -> "CraftedNoise":
        if self.periods > setting.T:
            raise ValueError(
                f"hire: {setting.T} time steps cannot be cut into {self.periods} periods; "
                f"take T of at least {self.periods}, or fewer periods"
            )
        eps = setting.train_eps if self.eps is None else self.eps
        alpha = eps if self.alpha is None else self.alpha
        return replace(self, eps=eps, alpha=alpha, T=setting.T, high=Threat(eps, high=setting.box.high).high)

    def identity(self) -> dict[str, Any]:
        # The network says it.
        return {key: value for key, value in super().identity().items() if key != "T"}

    def extra_passes(self) -> float:
        return 0.7 * (self.periods - 1)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: CounterRNG) -> Tensor:
        assert self.eps is not None and self.alpha is not None
        frames = x if x.dim() == 5 else x.unsqueeze(1).expand(-1, self.T, *x.shape[1:]).contiguous()
        region = ball(frames, Threat(self.eps, high=self.high))
        length, noise = frames.shape[1] // self.periods, torch.zeros_like(frames[:, :1])
        shown = frames
        with frozen(model):
            for period in range(1, self.periods):
                grad = input_gradient(model, shown, y, cross_entropy).grad
                seen = grad[:, (period - 1) * length : period * length].sum(1, keepdim=True)
                noise = (noise + float(self.alpha) * seen.sign()).clamp(-float(self.eps), float(self.eps))
                later = region.project(frames + noise)
                shown = torch.cat([shown[:, : period * length], later[:, period * length :]], 1)
        return shown


@searched(eps=Choice(("1/255", "2/255", "4/255", "8/255")), periods=Choice(("2", "4")))
def hire(eps: Fraction | None = None, periods: int = 2, alpha: Fraction | None = None) -> Defense:
    """Training with input noise that is crafted across the time steps of one presentation.

    Source: after HIRE-SNN (Kundu et al., ICCV 2021). Theirs: the time steps are cut into periods, each but the first
    is shown the image with noise, to which each period adds a sign step of the input gradient. Ours, since only test
    code is public: eps, alpha and the periods' number; the weights are updated once a batch and not once a period, so
    that crafting costs passes of its own, in eval mode; the gradient sees the whole presentation; the neuron's leak is
    the run's (theirs is 1).

    Args:
        eps: largest noise in pixel units, of frames in units of their scale; None takes the data set's default.
        periods: of the time steps; the paper draws 2 of 4.
        alpha: size of a sign step in the same units; None is eps.

    Raises:
        ValueError: fewer than 2 periods, or a negative eps or alpha; more periods than time steps, see `settled`.
    """
    if periods < 2:
        raise ValueError(f"hire: periods must be at least 2, got {periods}: the first is shown the image itself")
    if eps is not None:
        Threat(eps, high=math.inf)
    if alpha is not None and not alpha >= 0:
        raise ValueError(f"hire: alpha must not be negative, got {alpha}")
    return Defense("hire", (CraftedNoise(eps, periods, alpha),), strategy=True)
