"""Single neurons without and under attack, and which of them fire differently."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.evidence.numbers import Numbers
from bench.evidence.probe import Probe, traces
from models.neurons import spiking_layers


@dataclass(frozen=True)
class NeuronTrace(Numbers):
    """One neuron over the time steps [T], of one image.

    Attributes:
        neuron: its flat index in the layer.
        distance: |V - v_threshold| without attack at the time step where that is smallest.
        clean, attacked: potential that meets the threshold, noise included.
        clean_spikes, attacked_spikes: whether it fires.
        flips: whether the attack changes any of its spikes.
    """

    neuron: int
    distance: float
    clean: tuple[float, ...]
    attacked: tuple[float, ...]
    clean_spikes: tuple[bool, ...]
    attacked_spikes: tuple[bool, ...]
    flips: bool


@dataclass(frozen=True)
class LayerTraces(Numbers):
    """Some neurons of one layer for one image.

    Attributes:
        layer, image: which.
        v_threshold: its threshold.
        neurons: how many it has.
        flipped: how many of them change a spike.
        flipped_distance, kept_distance: mean `distance` of those, and of the others; None where there are none.
        shown: chosen by rank of `distance`, at even ranks from the nearest to the farthest.
    """

    layer: str
    image: int
    v_threshold: float
    neurons: int
    flipped: int
    flipped_distance: float | None
    kept_distance: float | None
    shown: tuple[NeuronTrace, ...]


def neuron_traces(model: nn.Module, x: Tensor, x_adv: Tensor, probe: Probe, count: int = 24) -> tuple[LayerTraces, ...]:
    """Potentials of neurons of every layer for the first image, without and under attack (TGO, Fig. 1).

    Both passes meet the same realisation of the network's noise. Which neurons are shown depends on the clean
    potentials alone: nobody picks them by what the attack does.

    Args:
        model: a network with spiking layers.
        x, x_adv: clean and attacked images [N, *]; only the first is used.
        probe: noise of its first draw.
        count: neurons shown for each layer.
    """
    layers = spiking_layers(model)
    part = slice(0, 1)
    with probe.realisation(model, part, 0):
        clean = traces(model, x[part])
    with probe.realisation(model, part, 0):
        attacked = traces(model, x_adv[part])
    found = []
    for name, trace in clean.items():
        before, after = (t.potential[:, 0].flatten(1).double().cpu() for t in (trace, attacked[name]))
        fired, fires = (t.spikes[:, 0].flatten(1).cpu() > 0 for t in (trace, attacked[name]))
        threshold = float(layers[name].v_threshold)
        distance = (before - threshold).abs().amin(0)
        flips = (fired != fires).any(0)
        ranked = distance.argsort(stable=True)
        chosen = ranked[torch.linspace(0, len(ranked) - 1, min(count, len(ranked))).long()]
        found.append(
            LayerTraces(
                name,
                int(probe.samples[0]),
                threshold,
                len(distance),
                int(flips.sum()),
                _mean(distance[flips]),
                _mean(distance[~flips]),
                tuple(
                    NeuronTrace(
                        int(i),
                        float(distance[i]),
                        tuple(before[:, i].tolist()),
                        tuple(after[:, i].tolist()),
                        tuple(fired[:, i].tolist()),
                        tuple(fires[:, i].tolist()),
                        bool(flips[i]),
                    )
                    for i in chosen.tolist()
                ),
            )
        )
    return tuple(found)


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
