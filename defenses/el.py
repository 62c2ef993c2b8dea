"""Neurons that learn how much they leak, at each step for themselves."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from defenses.base import Defense, Part
from defenses.search import Range, searched
from models.neurons import NeuronSpec


@dataclass(frozen=True)
class EvolutionaryLeak(Part):
    """Build the network from `LeakyByStep`."""

    name: ClassVar[str] = "evolutionary-leak"
    slot: ClassVar[str | None] = "neuron"
    leak: float = 1.0

    def extra_passes(self) -> float:
        return 0.3

    def neuron(self, spec: NeuronSpec) -> NeuronSpec:
        return replace(spec, kind="el", params=(("leak", self.leak),))


@searched(leak=Range(0.2, 1))
def el(leak: float = 1.0) -> Defense:
    """Evolutionary leak: the decay is a parameter of every neuron and time step, trained with the weights.

    Source: FEEL-SNN, Xu et al., NeurIPS 2024, the half of it that changes the neuron. Unconstrained and decayed like
    a weight, as in the official code. There every network starts with a decay of 1, which is the default here too,
    whatever `--decay` says: a network of this defense begins where the authors' began, and not where the other
    defenses of a table did.

    Args:
        leak: decay before training.

    Raises:
        ValueError: a leak that is no finite number.
    """
    if not math.isfinite(leak):
        raise ValueError(f"el: leak must be a finite number, got {leak}")
    return Defense("el", (EvolutionaryLeak(leak),))
