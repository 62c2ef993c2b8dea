"""Adversarial training."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

from torch import Tensor, nn

from attacks.pgd import pgd
from attacks.threat import Threat
from defenses.base import Defense, Part, Setting
from defenses.search import Choice, searched
from models.random import CounterRNG


@dataclass(frozen=True)
class AdversarialInputs(Part):
    """Train on PGD examples only. They are crafted in eval mode, with the network's own noise on.

    Attributes:
        eps: budget in pixel units; None takes the data set's (2/255 for CIFAR).
        steps: gradient steps.
        alpha: step size in pixel units; None is eps/2 as in SNN-RAT, whose two steps then just span the ball.
        high: the largest value that an input may take, the data set's; the least is 0.
    """

    name: ClassVar[str] = "adversarial-inputs"
    slot: ClassVar[str | None] = "input"
    eps: Fraction | None = None
    steps: int = 2
    high: float = 1.0
    alpha: Fraction | None = None

    def settled(self, setting: Setting) -> "AdversarialInputs":
        eps = setting.train_eps if self.eps is None else self.eps
        # The usual step size, spelled out, is the usual training.
        alpha = None if self.alpha == eps / 2 else self.alpha
        return replace(self, eps=eps, high=Threat(eps, high=setting.box.high).high, alpha=alpha)

    def identity(self) -> dict[str, Any]:
        values = super().identity()
        # Images reach to 1 and the step was always eps/2: networks that were trained so keep their keys.
        usual = (("high", 1.0), ("alpha", None))
        return {key: value for key, value in values.items() if (key, value) not in usual}

    def extra_passes(self) -> float:
        return 0.7 * self.steps

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: CounterRNG) -> Tensor:
        assert self.eps is not None
        threat = Threat(self.eps, high=self.high)
        alpha = self.eps / 2 if self.alpha is None else self.alpha
        path = pgd(model, x, y, threat, steps=self.steps, alpha=float(alpha), rng=rng)
        return path[self.steps].last


@searched(eps=Choice(("1/255", "2/255", "4/255", "8/255")))
def at(eps: Fraction | None = None, steps: int = 2, alpha: Fraction | None = None) -> Defense:
    """Adversarial training on l_inf PGD-2 examples, random start.

    On CIFAR: eps 2/255, alpha 1/255. It is tested at 8/255: a deliberately weak baseline.

    Source: the lineage of SNN-RAT (Ding et al., NeurIPS 2022); the TGO paper states "intensity 2/255 and k = 2".

    Args:
        eps: training budget in pixel units, of frames in units of their scale; None takes the data set's default.
        steps: PGD steps for each training example.
        alpha: step size in the same units; None is eps/2.

    Raises:
        ValueError: no step, or a negative eps or alpha. Whether eps is too large the data set decides, see `settled`.
    """
    if steps < 1:
        raise ValueError(f"at: steps must be at least 1, got {steps}")
    if eps is not None:
        Threat(eps, high=math.inf)
    if alpha is not None and not alpha >= 0:
        raise ValueError(f"at: alpha must not be negative, got {alpha}")
    return Defense("at", (AdversarialInputs(eps, steps, alpha=alpha),), strategy=True)
