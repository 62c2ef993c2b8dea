"""Single-step attacks: FGSM and the field's random-start variant."""

import torch
from torch import Tensor, nn

from attacks.base import Attack
from attacks.gradients import frozen, input_gradient
from attacks.losses import LOSSES
from attacks.projections import ball
from attacks.threat import Threat
from models.random import CounterRNG


def fgsm(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, rng: CounterRNG, loss: str = "ce") -> Tensor:
    """One step of size eps along the steepest direction of the loss.

    Source: Goodfellow et al., arXiv 1412.6572; with the l2 norm this is FGM.
    Cost: 1 forward, 1 backward.

    Args:
        model: maps [N, *] to logits [N, K].
        x: clean inputs [N, *] inside the box.
        y: true labels [N].
        threat: norm, eps and box.
        rng: unused; FGSM is deterministic.
        loss: `ce`, `margin` or `dlr`.

    Returns:
        x_adv [N, *], inside the ball and the box in float64.
    """
    region = ball(x, threat)
    with frozen(model):
        grad = input_gradient(model, x, y, LOSSES[loss]).grad
    return region.project(x + float(threat.eps) * region.steepest(grad))


def rfgsm(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, rng: CounterRNG, loss: str = "ce") -> Tensor:
    """A random sign step of eps/2, then a gradient sign step of eps/2: the "RFGSM" of the SNN papers.

    Source: Tramer et al., arXiv 1705.07204, as coded in SNN-RAT and its successors. Five
    different attacks share the name; this one is weaker than FGSM, because where
    the random and the gradient sign disagree (about half the pixels) the steps
    cancel. That is why RFGSM accuracy exceeds FGSM accuracy in every SNN table.
    Cost: 1 forward, 1 backward.

    Args, returns: as `fgsm`, with `rng` choosing the random signs. l_inf only.

    Raises:
        ValueError: a norm other than linf.
    """
    if threat.norm != "linf":
        raise ValueError("rfgsm is defined for the linf norm only")
    region = ball(x, threat)
    half = float(threat.eps) / 2
    signs = torch.where(rng.uniform(x.shape[1:]) < 0.5, -1, 1).to(x.dtype)
    start = region.project(x + half * signs)
    with frozen(model):
        grad = input_gradient(model, start, y, LOSSES[loss]).grad
    return region.project(start + half * grad.sign())


def clean(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, rng: CounterRNG) -> Tensor:
    """No attack: returns `x` itself.

    Source: none; the baseline row of every table.
    Cost: nothing.
    """
    return x.clone(memory_format=torch.preserve_format)


FGSM = Attack(fgsm, "one gradient step of size eps", defaults={"loss": "ce"})
RFGSM = Attack(rfgsm, "random sign step eps/2, gradient sign step eps/2", defaults={"loss": "ce"}, norms=("linf",))
CLEAN = Attack(clean, "no attack, the clean accuracy", cost=lambda steps: (0, 0))
