"""Adversarial training."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from torch import Tensor, nn

from attacks.pgd import pgd
from attacks.threat import Threat
from defenses.base import Defense, Part, Setting
from models.random import CounterRNG


@dataclass(frozen=True)
class AdversarialInputs(Part):
    """Train on PGD examples only. They are crafted in eval mode, with the network's own noise on.

    Attributes:
        eps: budget in pixel units; None takes the data set's (2/255 for CIFAR).
        steps: gradient steps. The step size is eps/2 as in SNN-RAT, whose two steps then just span the ball.
    """

    name: ClassVar[str] = "adversarial-inputs"
    slot: ClassVar[str | None] = "input"
    eps: Fraction | None = None
    steps: int = 2

    def settled(self, setting: Setting) -> "AdversarialInputs":
        return self if self.eps is not None else replace(self, eps=setting.train_eps)

    def extra_passes(self) -> float:
        return 0.7 * self.steps

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: CounterRNG) -> Tensor:
        assert self.eps is not None
        path = pgd(model, x, y, Threat(self.eps), steps=self.steps, alpha=float(self.eps / 2), rng=rng)
        return path[self.steps].last


def at(eps: Fraction | None = None, steps: int = 2) -> Defense:
    """Adversarial training on l_inf PGD-2 examples, random start.

    On CIFAR: eps 2/255, step 1/255. Source: the lineage of SNN-RAT (Ding et al., NeurIPS 2022); the TGO paper states
    "intensity 2/255 and k = 2". It is tested at 8/255: a deliberately weak baseline.

    Args:
        eps: training budget in pixel units; None takes the data set's default.
        steps: PGD steps for each training example.
    """
    if steps < 1:
        raise ValueError(f"at: steps must be at least 1, got {steps}")
    if eps is not None:
        Threat(eps)
    return Defense("at", (AdversarialInputs(eps, steps),), strategy=True)
