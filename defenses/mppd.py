"""Membrane-potential perturbation dynamics: what a perturbation does to the last layer is damped."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defenses.base import Defense, Part, Setting, Step
from defenses.search import Range, searched
from models.neurons import last_currents, spiking_layers


@dataclass(frozen=True)
class PerturbationDynamics(Part):
    """Cross-entropy of clean and perturbed images in equal shares, and rho * mean(Y^2) of the last spiking layer.

    Y is what the layer's potential would keep of the change of its currents if nothing fired, see `dynamics`. The
    perturbed images are the step's where another part perturbs them, else Gaussian noise is added; both passes meet
    the same noise of the network.
    """

    name: ClassVar[str] = "perturbation-dynamics"
    slot: ClassVar[str | None] = "loss"
    observes_currents: ClassVar[bool] = True
    rho: float = 1.0
    sigma: Fraction | None = None

    def settled(self, setting: Setting) -> "PerturbationDynamics":
        if self.sigma is not None:
            return self
        return replace(self, sigma=setting.train_eps if setting.eps is None else setting.eps)

    def extra_passes(self) -> float:
        return 1.0

    def task_loss(self, step: Step) -> Tensor:
        assert step.currents is not None and self.sigma is not None
        other = step.clean
        if step.is_clean:
            other = other + float(self.sigma) * step.rng.normal(1, other.shape[1:], stream=1)[0].to(other.dtype)
        with step.same_noise(), last_currents(step.model) as found:
            logits = step.model(other)
        clean, perturbed = (step.currents, found[0]) if step.is_clean else (found[0], step.currents)
        decay = next(iter(spiking_layers(step.model).values())).decay
        change = dynamics(clean.detach().float() - perturbed.float(), decay)
        both = functional.cross_entropy(step.logits, step.y) + functional.cross_entropy(logits, step.y)
        return 0.5 * both + self.rho * change.square().mean()


def dynamics(change: Tensor, decay: float) -> Tensor:
    """Y[t] = decay Y[t-1] + dI[t] from Y = 0: the leaky sum of a change of currents, without spikes and resets.

    Args:
        change: dI, [T, *].
        decay: the layer's leak factor.

    Returns:
        Y, [T, *].
    """
    kept = [change[0]]
    for now in change[1:]:
        kept.append(decay * kept[-1] + now)
    return torch.stack(kept)


@searched(rho=Range(0.1, 4, log=True))
def mppd(rho: float = 1.0, sigma: Fraction | None = None) -> Defense:
    """Training on clean and perturbed images that keeps the last layer's currents together (MS-MPPD).

    Source: Ding et al., "Robust Stable Spiking Neural Networks", ICML 2024, and its official code. The paper's DLIF is
    `dlif+mppd` (decay 0.99, T 8); its AT is one step of 4/255 from nearly the image,
    `dlif+mppd+at:eps=4/255,steps=1,alpha=4/255`, where `at` starts anywhere in the ball; its AT+Reg is the sum with
    `rat` in place of `at`. With plain neurons rho = 2 costs the paper's networks their clean accuracy. The currents are
    compared before `dlif` scales them, as in the code. Y decays by the decay that the network was built with, also
    where `el` learns another.

    Args:
        rho: weight of mean(Y^2), at least 0.
        sigma: standard deviation of the noise without `at` or `rat`, in pixel units, of frames in units of their scale;
            None takes the eps that the data set is attacked with (8/255 on CIFAR, the paper's). As there, noisy images
            are not clipped.

    Raises:
        ValueError: a negative rho, or a sigma that is not positive.
    """
    if not rho >= 0 or (sigma is not None and not sigma > 0):
        raise ValueError(f"mppd: rho must not be negative and sigma must be positive, got {rho} and {sigma}")
    return Defense("mppd", (PerturbationDynamics(rho, sigma),))
