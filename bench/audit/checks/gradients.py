"""Is there a gradient, and does it point where the loss rises?"""

import torch
from torch import Tensor

from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy, margin
from attacks.projections import ball
from attacks.threat import Threat
from bench.audit.finding import INVALID, OK, SUSPECT, Finding, limited
from bench.audit.lab import Lab
from bench.audit.paired import broken_more
from models.neurons import LIF, spiking_layers
from models.random import CounterRNG, noise_stream

ZERO, BLIND, DIRECTION, SATURATED, SATURATED_GAP = 0.05, 0.10, 0.25, 0.05, 0.10
_KEY = 1
_PROBES = 4
_NEGLIGIBLE = 1e-4


def zero_gradient(lab: Lab) -> Finding:
    """Images whose input gradient is exactly zero, and the layer at which most gradients are lost."""
    try:
        zero, layers = _zero_gradients(lab)
    except ValueError as error:
        return Finding("zero gradient", INVALID, 1.0, ZERO, str(error))
    share = float(zero.double().mean())
    lost = max(layers, key=lambda name: layers[name], default="")
    where = f", and at {lost} for {layers[lost]:.0%}" if lost and layers[lost] > 0 else ""
    says = f"the gradient is exactly zero at the input for {share:.1%} of the images{where}"
    return limited("zero gradient", share, ZERO, says, f"{says}: gradient attacks are blind there")


def blind_gradient(lab: Lab) -> Finding:
    """Images on which the logits move within the ball although the gradient says that they do not."""
    gradient = _margin_gradient(lab)
    if gradient is None:
        return _without("blind gradient", BLIND)
    here = margin(lab.logits(key=_KEY), lab.y)
    moved = torch.zeros_like(here, dtype=torch.bool)
    foreseen = torch.zeros_like(here, dtype=torch.bool)
    region, rng = ball(lab.x, _threat(lab)), CounterRNG(_KEY, lab.samples)
    for probe in range(_PROBES):
        point = region.random_point(rng.fork(probe + 1))
        change = margin(lab.logits(point, key=_KEY), lab.y) - here
        linear = (gradient * (point - lab.x)).flatten(1).sum(1)
        seen = change.abs() > 1e-3 * (1 + here.abs())
        moved |= seen
        foreseen |= seen & (linear.abs() > _NEGLIGIBLE * change.abs())
    share = float((moved & ~foreseen).double().mean())
    wrong = (
        f"on {share:.1%} of the images random points of the ball change the logits and the gradient says they do "
        "not: something on the way is not differentiable (rounding, detach, an undone encoder)"
    )
    return limited("blind gradient", share, BLIND, "where the logits move, the gradient does not deny it", wrong)


def direction(lab: Lab) -> Finding:
    """A step along the gradient raises the loss more than a step against it."""
    gradient = _margin_gradient(lab)
    if gradient is None:
        return _without("direction", DIRECTION)
    region = ball(lab.x, _threat(lab))
    step = float(lab.spec.eps) * region.steepest(gradient)
    up, down = (margin(lab.logits(region.project(lab.x + sign * step), key=_KEY), lab.y) for sign in (1, -1))
    share = float((~(up > down)).double().mean())
    says = f"on {share:.1%} of the images a step along the gradient raises the loss no more than one against it"
    return limited("direction", share, DIRECTION, says, f"{says}: the gradient does not tell where the loss rises")


def saturated_ce(lab: Lab) -> Finding:
    """Cross-entropy that is exactly flat where the margin is not, or an attack that gains much by leaving it."""
    margins = _margin_gradient(lab)
    if margins is None:
        return _without("saturated ce", SATURATED)
    with frozen(lab.model), noise_stream(lab.model, _KEY, lab.samples):
        ce = input_gradient(lab.model, lab.x, lab.y, cross_entropy)
    flat = (ce.grad == 0).flatten(1).all(1) | (ce.loss == 0)
    share = float((flat & ~(margins == 0).flatten(1).all(1)).double().mean())
    if share > SATURATED:
        says = f"cross-entropy is exactly flat on {share:.1%} of the images where the margin is not: attack with "
        return Finding("saturated ce", SUSPECT, share, SATURATED, says + "loss=margin")
    return broken_more(
        "saturated ce",
        lab.stands("pgd20:loss=margin"),
        lab.stands("pgd20"),
        SATURATED_GAP,
        "PGD-20 on the margin against cross-entropy",
        "PGD on the margin breaks many more images than on cross-entropy",
    )


def _without(check: str, limit: float) -> Finding:
    return Finding(check, OK, None, limit, "not measured: the network has no gradient")


def _threat(lab: Lab) -> Threat:
    return Threat(lab.spec.eps, lab.spec.norm, high=lab.spec.high)  # type: ignore[arg-type]


def _margin_gradient(lab: Lab) -> Tensor | None:
    """Gradient of the margin loss at the images [N, *], or None where there is none at all."""
    try:
        with frozen(lab.model), noise_stream(lab.model, _KEY, lab.samples):
            return input_gradient(lab.model, lab.x, lab.y, margin).grad
    except ValueError:
        return None


def _zero_gradients(lab: Lab) -> tuple[Tensor, dict[str, float]]:
    """Images without a gradient of the margin, bool [N]; share of them by spiking layer."""
    layers: dict[str, float] = {}
    hooks = []
    for name, layer in spiking_layers(lab.model).items():

        def watch(_: LIF, __: object, out: Tensor, name: str = name) -> None:
            if out.requires_grad:

                def count(grad: Tensor) -> None:
                    layers[name] = float((grad == 0).transpose(0, 1).flatten(1).all(1).double().mean())

                out.register_hook(count)

        hooks.append(layer.register_forward_hook(watch))
    try:
        with frozen(lab.model), noise_stream(lab.model, _KEY, lab.samples):
            gradient = input_gradient(lab.model, lab.x, lab.y, margin).grad
    finally:
        for hook in hooks:
            hook.remove()
    return (gradient == 0).flatten(1).all(1), layers
