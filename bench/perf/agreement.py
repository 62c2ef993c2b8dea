"""Whether contestants compute the same thing; who does not is not timed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.external.hosting import hosted
from bench.errors import describe
from bench.perf.contestants import BY_NAME, OURS, Contestant
from bench.perf.lab import Lab, craft, in_state
from bench.perf.neurons import Neuron
from bench.perf.subject import EPS
from models.neurons import spiking_layers

TOLERANCE = 1e-9
"""Largest relative difference in float64 that passes for rounding."""
SAME_PIXELS = 0.9
"""Share of pixels in which two runs of one attack on one network must agree; the rest is what rounding may flip."""
_CLOSE = 1e-6


@dataclass(frozen=True)
class NetworkAgreement:
    """A network beside ours. Differences are the largest, relative to our largest value.

    Attributes:
        network: name.
        logits, gradient: in eval mode, in float64: of the logits, and of the loss in the images.
        weights: in training mode, in float64: of the loss in all weights; nan for a network that is not trained here.
        logits32, gradient32: as the first two, in float32.
        flips: spikes that differ in float32, of `neurons`; -1 where they cannot be seen.
        neurons: spikes that could.
        error: why nothing was compared.
    """

    network: str
    logits: float = float("nan")
    gradient: float = float("nan")
    weights: float = float("nan")
    logits32: float = float("nan")
    gradient32: float = float("nan")
    flips: int = -1
    neurons: int = 0
    error: str = ""

    @property
    def agrees(self) -> bool:
        """Whether it is the same function with the same gradients."""
        known = [value for value in (self.logits, self.gradient, self.weights) if value == value]
        return not self.error and self.logits == self.logits and all(value <= TOLERANCE for value in known)


@dataclass(frozen=True)
class AttackAgreement:
    """A library's PGD beside ours on the same network.

    Attributes:
        name: contestant.
        images: how many.
        same: share of pixels that are equal.
        fooled, ours: images whose class changed, under theirs and under ours.
        loss, loss_ours, loss_clean: mean cross-entropy under theirs, under ours, and without attack.
        excess: by how much their candidates leave the ball, in pixel units.
        error: why nothing was compared.
    """

    name: str
    images: int = 0
    same: float = 0.0
    fooled: int = 0
    ours: int = 0
    loss: float = 0.0
    loss_ours: float = 0.0
    loss_clean: float = 0.0
    excess: float = 0.0
    error: str = ""

    @property
    def agrees(self) -> bool:
        """Whether it is the same attack."""
        return not self.error and self.same >= SAME_PIXELS and self.excess <= _CLOSE


def compare_network(lab: Lab, name: str, images: int = 4, *, trained: bool = False) -> NetworkAgreement:
    """Hold a network beside ours.

    Args:
        lab: builds both.
        name: of the network.
        images: how many images.
        trained: also compare the weights' gradients in training mode.
    """
    x, y = lab.batch(images)
    try:
        wide = [_both(lab.fresh(each, torch.float64), x.double(), y) for each in (OURS, name)]
        narrow = [_both(lab.fresh(each), x, y) for each in (OURS, name)]
        weights = float("nan")
        if trained:
            weights = _weight_difference(lab, name, x.double(), y)
        flips, neurons = _flips(lab, name, x)
    except Exception as error:
        # A library's code.
        return NetworkAgreement(name, error=describe(error))
    (logits, gradient), (logits32, gradient32) = (
        [_difference(ours, theirs) for ours, theirs in zip(*pair, strict=True)] for pair in (wide, narrow)
    )
    return NetworkAgreement(name, logits, gradient, weights, logits32, gradient32, flips, neurons)


def compare_attack(lab: Lab, name: str, images: int = 4, steps: int = 7) -> AttackAgreement:
    """Hold a contestant's PGD beside ours on the contestant's network.

    Args:
        lab: builds the network.
        name: of the contestant.
        images, steps: of the attack.
    """
    contestant = BY_NAME[name]
    x, y = lab.batch(images)
    try:
        model = lab.network(contestant.network)
        with in_state(model, "tuned"):
            theirs = craft(lab, contestant, model, x, y, steps)
            ours = craft(lab, Contestant(contestant.network, OURS), model, x, y, steps)
            with torch.no_grad():
                logits = [model(candidates) for candidates in (theirs, ours, x)]
    except Exception as error:
        # A library's code.
        return AttackAgreement(name, images, error=describe(error))
    same = float(((theirs - ours).abs() <= _CLOSE).double().mean())
    excess = float(((theirs - x).abs() - float(EPS)).max())
    fooled, fooled_ours, _ = (int((answer.argmax(1) != logits[2].argmax(1)).sum()) for answer in logits)
    losses = (float(functional.cross_entropy(answer, y)) for answer in logits)
    loss, loss_ours, loss_clean = losses
    return AttackAgreement(name, images, same, fooled, fooled_ours, loss, loss_ours, loss_clean, max(excess, 0.0))


def _both(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and the loss's gradient in the images."""
    with in_state(model, "tuned"):
        x = x.detach().clone().requires_grad_()
        logits = model(x)
        (grad,) = torch.autograd.grad(functional.cross_entropy(logits, y, reduction="sum"), x)
    return logits.detach(), grad


def _difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    largest = float(ours.abs().max())
    return float((ours - theirs).abs().max()) / (largest or 1.0)


def _weight_difference(lab: Lab, name: str, x: Tensor, y: Tensor) -> float:
    grads = []
    for each in (OURS, name):
        model = lab.fresh(each, torch.float64).train()
        functional.cross_entropy(model(x), y).backward()
        grads.append({key: parameter.grad for key, parameter in model.named_parameters()})
    ours, theirs = grads
    largest = max(float(grad.abs().max()) for grad in ours.values() if grad is not None)
    return max(float((ours[key] - theirs[key]).abs().max()) for key in ours) / largest  # type: ignore[operator]


def _flips(lab: Lab, name: str, x: Tensor) -> tuple[int, int]:
    """Spikes that differ in float32, and how many there could be; -1 where a network hides its layers' outputs."""
    layers = []
    for each in (OURS, name):
        model = lab.fresh(each)
        with torch.no_grad(), _recorded(model) as spikes:
            model(x)
        layers.append([torch.cat(parts) for parts in spikes.values()])
    ours, theirs = layers
    if [len(part.flatten()) for part in ours] != [len(part.flatten()) for part in theirs]:
        return -1, 0
    flips = sum(int((a.flatten() != b.flatten()).sum()) for a, b in zip(ours, theirs, strict=True))
    return flips, sum(part.numel() for part in ours)


@contextmanager
def _recorded(model: nn.Module) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Each spiking layer's outputs, time merged into the batch, in the order of the layers' first calls."""
    spikes: dict[nn.Module, list[Tensor]] = {}
    own = set(spiking_layers(model).values())

    def record(module: nn.Module, _: object, output: Tensor) -> None:
        spikes.setdefault(module, []).append(output.flatten(0, 1) if module in own else output)

    layers = [module for module in model.modules() if module in own or isinstance(module, Neuron)]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        with hosted(0):
            yield spikes
    finally:
        for hook in hooks:
            hook.remove()
