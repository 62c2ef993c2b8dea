"""Neurons with a learnt input gain for each time step."""

from dataclasses import dataclass, replace
from typing import ClassVar

from defenses.base import Defense, Part
from models.neurons import NeuronSpec


@dataclass(frozen=True)
class DynamicNeurons(Part):
    """Build the network from `DynamicLIF`."""

    name: ClassVar[str] = "dynamic-lif"
    slot: ClassVar[str | None] = "neuron"

    def neuron(self, spec: NeuronSpec) -> NeuronSpec:
        return replace(spec, kind="dlif")


def dlif() -> Defense:
    """Dynamic LIF neurons: V[t] = decay U[t-1] + p_t I[t] with p learnt by each layer.

    Source: Ding et al., "Robust Stable Spiking Neural Networks", ICML 2024. What that paper calls DLIF is `dlif+mppd`,
    with decay 0.99 and T 8.
    """
    return Defense("dlif", (DynamicNeurons(),))
