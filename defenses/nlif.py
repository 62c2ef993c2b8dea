"""Noisy LIF neurons, the second half of TGO."""

from dataclasses import dataclass, replace
from typing import ClassVar

from defenses.base import Defense, Part
from defenses.search import Range, searched
from models.neurons import NeuronSpec


@dataclass(frozen=True)
class NoisyNeurons(Part):
    """Build the network from `NoisyLIF`: noise in training, in crafting and in evaluation."""

    name: ClassVar[str] = "noisy-lif"
    slot: ClassVar[str | None] = "neuron"
    noise_var: float = 0.4

    def extra_passes(self) -> float:
        return 0.2

    def neuron(self, spec: NeuronSpec) -> NeuronSpec:
        return replace(spec, kind="nlif", params=(("noise_var", self.noise_var),))


@searched(noise_var=Range(0.02, 1, log=True))
def nlif(noise_var: float = 0.4) -> Defense:
    """Gaussian noise on every membrane potential.

    Source: TGO, Eq. 15. "A variance of 0.4" is read literally (sigma 0.63); noise_var=0.16 is the other reading.

    Args:
        noise_var: variance of the noise, at least 0.
    """
    if not noise_var >= 0:
        raise ValueError(f"nlif: noise_var must not be negative, got {noise_var}")
    return Defense("nlif", (NoisyNeurons(noise_var),))
