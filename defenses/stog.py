"""Stochastic gating of spikes."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from defenses.base import Defense, Part, Step
from defenses.search import Range, searched
from models.gates import GatedLIF
from models.neurons import NeuronSpec, spiking_layers


@dataclass(frozen=True)
class StochasticGates(Part):
    """Build the network from `GatedLIF`; in the first half of the epochs gamma/2 * sum theta^2 closes the gates.

    In the second half theta stays as it is.
    """

    name: ClassVar[str] = "stochastic-gates"
    slot: ClassVar[str | None] = "neuron"
    gamma: float = 5e-6

    def extra_passes(self) -> float:
        return 0.2

    def neuron(self, spec: NeuronSpec) -> NeuronSpec:
        return replace(spec, kind="stog")

    def before_epoch(self, model: nn.Module, progress: float) -> None:
        for layer in _gated(model):
            layer.theta.requires_grad_(_learns(progress))

    def penalty(self, step: Step) -> Tensor | None:
        if not _learns(step.progress):
            return None
        return self.gamma / 2 * torch.stack([layer.theta.square().sum() for layer in _gated(step.model)]).sum()


def _gated(model: nn.Module) -> list[GatedLIF]:
    return [layer for layer in spiking_layers(model).values() if isinstance(layer, GatedLIF)]


def _learns(progress: float) -> bool:
    return progress < 0.5


@searched(gamma=Range(1e-6, 1e-2, log=True))
def stog(gamma: float = 5e-6) -> Defense:
    """Random gates after every spiking layer, with learnt probabilities.

    Source: StoG, Ding et al., AAAI 2024, and its official code: a gate for each neuron, step and image, open with p =
    clip(theta, 0.1, 1), also at test time; a prior on theta for 100 of 200 epochs, after which it is kept; no weight
    decay on theta. The paper's neuron has decay 1 and T 8, and its adversarial training is FGSM: nearly
    `stog+at:steps=1,alpha=2/255` on CIFAR, where `at` starts anywhere in the ball. Three things differ: theta takes
    part in the one optimiser, the gradient of the loss in theta has the sign and the size of the chain rule (see
    `models.gates`), and the last training epoch is taken. How far the gates close depends on the number of updates:
    with the published gamma a theta moves by 5e-6 times ten learning rates in each, so that in a short training all
    gates stay nearly open.

    Args:
        gamma: weight of the prior, at least 0.

    Raises:
        ValueError: a negative gamma.
    """
    if not gamma >= 0:
        raise ValueError(f"stog: gamma must not be negative, got {gamma}")
    return Defense("stog", (StochasticGates(gamma),))
