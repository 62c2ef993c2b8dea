"""Where membrane potentials lie, and which neurons fire."""

from dataclasses import dataclass

from torch import Tensor, nn

from bench.evidence.numbers import Numbers
from bench.evidence.probe import Probe, shares, traces
from models.neurons import spiking_layers


@dataclass(frozen=True)
class LayerMembrane(Numbers):
    """One spiking layer.

    Attributes:
        name: the layer.
        neurons: how many it has.
        near: share of potentials, before noise, with |V - v_threshold| < delta, by time step [T].
        rate: share of neurons that fire, by time step [T].
        silent: share of neurons that fire for no image at no time step in no draw.
    """

    name: str
    neurons: int
    near: tuple[float, ...]
    rate: tuple[float, ...]
    silent: float

    @property
    def mean_rate(self) -> float:
        """Spikes a neuron and time step."""
        return sum(self.rate) / len(self.rate)


def layer_membranes(model: nn.Module, x: Tensor, probe: Probe, delta: float = 0.5) -> tuple[LayerMembrane, ...]:
    """Threshold-neighbouring neurons (TGO, Sec. 4.1 and Eq. 12), firing rates and silent neurons.

    Cost: 1 forward for each draw.

    Args:
        model: a network with spiking layers.
        x: inputs [N, *].
        probe: noise; its gradient is not used.
        delta: half-width of the neighbourhood, in units of membrane potential.

    Raises:
        ValueError: a negative delta.
    """
    if not delta >= 0:
        raise ValueError(f"delta must not be negative, got {delta}")
    layers = spiking_layers(model)
    near: dict[str, Tensor] = {}
    rate: dict[str, Tensor] = {}
    fired: dict[str, Tensor] = {}
    for part, draw in probe.parts():
        weight = (part.stop - part.start) / (len(x) * probe.draws)
        with probe.realisation(model, part, draw):
            found = traces(model, x[part])
        for name, trace in found.items():
            close = (trace.membrane - layers[name].v_threshold).abs() < delta
            near[name] = near.get(name, 0) + shares(close) * weight
            rate[name] = rate.get(name, 0) + shares(trace.spikes > 0) * weight
            fires = (trace.spikes > 0).flatten(0, 1).flatten(1).any(0)
            fired[name] = fired[name] | fires if name in fired else fires
    return tuple(
        LayerMembrane(
            name,
            fired[name].numel(),
            tuple(near[name].tolist()),
            tuple(rate[name].tolist()),
            float((~fired[name]).double().mean()),
        )
        for name in near
    )
