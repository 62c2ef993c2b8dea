"""TRADES: clean accuracy and invariance under attack, weighed against each other."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.gradients import frozen, input_gradient
from attacks.projections import ball
from attacks.threat import Threat
from defenses.base import Defense, Part, Setting, Step
from defenses.search import Choice, Range, searched
from models.random import CounterRNG

_EPS = Fraction(8, 255)
_ALPHA_PER_EPS = Fraction(3, 8)


def divergence(z: Tensor, z_clean: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(softmax(z_clean / tau) || softmax(z / tau)) of each image: logits [N, K] twice -> [N]."""
    p, q = (functional.log_softmax(logits / temperature, 1) for logits in (z_clean, z))
    return temperature**2 * (p.exp() * (p - q)).sum(1)


@dataclass(frozen=True)
class DivergentInputs(Part):
    """Train on the points of the ball whose logits are furthest from the image's own, by divergence.

    From a uniform point of half the ball (at the image itself the divergence has no gradient) `steps` sign steps.
    Crafted in eval mode, with the network's own noise on.

    Attributes:
        eps: budget in pixel units; None takes the eps that the data set is attacked with, or 8/255.
        steps: gradient steps.
        alpha: step size in pixel units; None is 3/8 of eps.
        temperature: tau.
        high: the largest value that an input may take, the data set's; the least is 0.
    """

    name: ClassVar[str] = "divergent-inputs"
    slot: ClassVar[str | None] = "input"
    eps: Fraction | None = None
    steps: int = 4
    alpha: Fraction | None = None
    temperature: float = 2.0
    high: float = 1.0

    def settled(self, setting: Setting) -> "DivergentInputs":
        eps = (setting.eps or _EPS) if self.eps is None else self.eps
        alpha = eps * _ALPHA_PER_EPS if self.alpha is None else self.alpha
        return replace(self, eps=eps, alpha=alpha, high=Threat(eps, high=setting.box.high).high)

    def extra_passes(self) -> float:
        return 0.7 * self.steps

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: CounterRNG) -> Tensor:
        assert self.eps is not None and self.alpha is not None
        region = ball(x, Threat(self.eps, high=self.high))
        moved = ball(x, Threat(self.eps / 2, high=self.high)).random_point(rng)
        with frozen(model):
            with torch.no_grad():
                z_clean = model(x).to(x.dtype)
            for _ in range(self.steps):
                grad = input_gradient(model, moved, z_clean, self._divergence).grad
                moved = region.project(moved + float(self.alpha) * region.steepest(grad))
        return moved

    def _divergence(self, z: Tensor, z_clean: Tensor) -> Tensor:
        return divergence(z, z_clean, self.temperature)


@dataclass(frozen=True)
class InvarianceLoss(Part):
    """CE(z_clean, y) + beta * mean divergence of the perturbed logits from the clean ones, in train mode.

    Both calls meet the same noise of a noisy network, so that the divergence is the perturbation's alone.

    Attributes:
        beta: weight of the divergence.
        temperature: tau.
    """

    name: ClassVar[str] = "invariance-loss"
    slot: ClassVar[str | None] = "loss"
    beta: float = 5.0
    temperature: float = 2.0

    def extra_passes(self) -> float:
        return 1.0

    def task_loss(self, step: Step) -> Tensor:
        with step.same_noise():
            z_clean = step.model(step.clean)
        task = functional.cross_entropy(z_clean, step.y)
        return task + self.beta * divergence(step.logits, z_clean, self.temperature).mean()


@searched(beta=Range(1, 10, log=True), eps=Choice(("4/255", "8/255", "12/255")))
def trades(
    beta: float = 5.0,
    eps: Fraction | None = None,
    steps: int = 4,
    alpha: Fraction | None = None,
    temperature: float = 2.0,
) -> Defense:
    """TRADES: cross-entropy on clean images plus the divergence of the logits under attack from the clean ones.

    Source: Zhang et al., ICML 2019; for spiking networks Towards Reliable Evaluation of Adversarial Robustness for
    SNNs, arXiv 2512.22522, and its code: beta 5, temperature 2, 4 steps of 3/255 at eps 8/255. That code crafts in
    train mode; here as everywhere in eval mode.

    Args:
        beta: weight of the divergence.
        eps: training budget in pixel units, of frames in units of their scale; None takes the eps that the data set is
            attacked with (8/255 on CIFAR).
        steps: gradient steps for each training example.
        alpha: step size in the same units; None is 3/8 of eps.
        temperature: divides the logits in the divergence, which is multiplied by its square.

    Raises:
        ValueError: no step; a negative beta, eps or alpha; a temperature that is not positive. Whether eps is too
            large the data set decides, see `settled`.
    """
    if steps < 1:
        raise ValueError(f"trades: steps must be at least 1, got {steps}")
    if not (beta >= 0 and temperature > 0):
        raise ValueError(
            f"trades: beta must not be negative and temperature must be positive, got {beta} and {temperature}"
        )
    if eps is not None:
        Threat(eps, high=math.inf)
    if alpha is not None and not alpha >= 0:
        raise ValueError(f"trades: alpha must not be negative, got {alpha}")
    adversary = DivergentInputs(eps, steps, alpha, temperature)
    return Defense("trades", (adversary, InvarianceLoss(beta, temperature)), strategy=True)
