"""How membrane potentials are distributed around the threshold."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.evidence.numbers import Numbers
from bench.evidence.probe import Probe, traces
from models.neurons import spiking_layers

BINS = 160
LOW, HIGH = -5.0, 3.0


@dataclass(frozen=True)
class Histogram(Numbers):
    """Potentials of one layer, before noise and reset, over images, draws, neurons and time steps.

    Attributes:
        layer: its name, or `all layers`.
        counts: potentials in each of the bins between `edges`; the first and the last also hold what lies beyond.
        edges: one more than `counts`; V - v_threshold.
        near: share with |V - v_threshold| < delta.
        total: potentials counted.
    """

    layer: str
    counts: tuple[int, ...]
    edges: tuple[float, ...]
    near: float
    total: int


def membrane_histograms(model: nn.Module, x: Tensor, probe: Probe, delta: float = 0.5) -> tuple[Histogram, ...]:
    """Histograms of every spiking layer and of all together (TGO, Fig. 4).

    Cost: 1 forward for each draw.

    Args:
        model: a network with spiking layers.
        x: inputs [N, *].
        probe: noise; its gradient is not used.
        delta: half-width of the neighbourhood of the threshold.
    """
    layers = spiking_layers(model)
    counts: dict[str, Tensor] = {}
    near: dict[str, int] = {}
    for part, draw in probe.parts():
        with probe.realisation(model, part, draw):
            found = traces(model, x[part])
        for name, trace in found.items():
            distance = (trace.membrane - layers[name].v_threshold).double().flatten().cpu()
            binned = torch.histc(distance.clamp(LOW, HIGH), BINS, LOW, HIGH).long()
            counts[name] = counts.get(name, 0) + binned
            near[name] = near.get(name, 0) + int((distance.abs() < delta).sum())
    edges = tuple(torch.linspace(LOW, HIGH, BINS + 1, dtype=torch.float64).tolist())
    each = [_histogram(name, counts[name], edges, near[name]) for name in counts]
    whole = torch.stack(list(counts.values())).sum(0)
    return (*each, _histogram("all layers", whole, edges, sum(near.values())))


def _histogram(name: str, counts: Tensor, edges: tuple[float, ...], near: int) -> Histogram:
    total = int(counts.sum())
    return Histogram(name, tuple(counts.tolist()), edges, near / total, total)
