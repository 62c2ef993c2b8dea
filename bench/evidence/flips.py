"""Which spikes a perturbation of the input flips, against Theorem 1 of the TGO paper.

Theorem 1 adds Gaussian noise N(0, sigma^2) to one neuron's potential V[t] and states the probability that its
spike changes, which is Phi(-|V[t] - V_th| / sigma) on either side of the threshold. As printed it is right, and
it is no statement on perturbed inputs: it does not say what sigma an input perturbation of size eps amounts to,
a change of the input is neither Gaussian nor independent from neuron to neuron, and in V[t] it meets the spikes
that flipped in earlier layers and steps, above all the resets.

The nearest reading with a definite value, computed here: sigma is the root mean square of V'[t] - V[t] that the
perturbation really causes, for each layer and time step. The prediction thus knows how far potentials move and
gets wrong only how. Distances are of the potential that meets the threshold, a neuron's own noise included,
since both passes share that noise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.evidence.numbers import Numbers
from bench.evidence.probe import Probe, Trace, traces
from models.neurons import spiking_layers

EDGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, math.inf)


@dataclass(frozen=True)
class DistanceBin(Numbers):
    """Neurons whose distance to the threshold lies in [low, high).

    Attributes:
        low, high: in units of membrane potential; the last `high` is infinite.
        share: of all (neuron, step, image, draw).
        flipped: share of these whose spike differs under the perturbation; NaN for an empty bin.
        predicted: what Theorem 1 gives for these, on average.
    """

    low: float
    high: float
    share: float
    flipped: float
    predicted: float


@dataclass(frozen=True)
class LayerFlips(Numbers):
    """One spiking layer, by time step [T].

    Attributes:
        name: the layer.
        sigma: root mean square of the change of the potential.
        flipped: share of spikes that differ.
        predicted: what Theorem 1 gives with that sigma.
    """

    name: str
    sigma: tuple[float, ...]
    flipped: tuple[float, ...]
    predicted: tuple[float, ...]


@dataclass(frozen=True)
class FlipEvidence(Numbers):
    """What one perturbation does to the spikes.

    Attributes:
        perturbation: its name.
        flipped: share of all spikes that differ.
        predicted: what Theorem 1 gives.
        untouched: share of images (and draws) in which no spike differs; their logits cannot differ either
            where only spikes reach the readout.
        bins: by distance to the threshold.
        layers: in order of their call.
    """

    perturbation: str
    flipped: float
    predicted: float
    untouched: float
    bins: tuple[DistanceBin, ...]
    layers: tuple[LayerFlips, ...]


def flip_probability(potential: Tensor, v_threshold: float, sigma: Tensor | float) -> Tensor:
    """Theorem 1: the probability that noise N(0, sigma^2) on the potential changes the spike; float64.

    Args:
        potential: V, any shape.
        v_threshold: firing at V >= v_threshold.
        sigma: standard deviation, broadcastable to `potential`; 0 flips nothing.
    """
    distance = (potential.double() - v_threshold).abs()
    sigma = torch.as_tensor(sigma, dtype=torch.float64, device=potential.device).expand_as(distance)
    return torch.where(sigma > 0, torch.special.ndtr(-distance / torch.where(sigma > 0, sigma, 1)), 0)


def flip_evidence(model: nn.Module, x: Tensor, x_perturbed: Tensor, probe: Probe, perturbation: str) -> FlipEvidence:
    """Spikes at `x` against spikes at `x_perturbed`, under the same noise.

    Cost: 4 forwards for each draw; the first two find sigma.

    Args:
        model: a network with spiking layers.
        x, x_perturbed: inputs [N, *].
        probe: noise; its gradient is not used.
        perturbation: what to call it.

    Raises:
        ValueError: the network has no spiking layer.
    """
    if not spiking_layers(model):
        raise ValueError("the network has no spiking layer: nothing can flip")
    parts = list(probe.parts())

    def pairs(part: slice, draw: int) -> dict[str, tuple[Trace, Trace]]:
        seen = []
        for images in (x, x_perturbed):
            with probe.realisation(model, part, draw):
                seen.append(traces(model, images[part]))
        return {name: (seen[0][name], seen[1][name]) for name in seen[0]}

    squares: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for part, draw in parts:
        for name, (before, after) in pairs(part, draw).items():
            change = (after.potential - before.potential).flatten(1).double().square()
            squares[name] = squares.get(name, 0) + change.sum(1)
            counts[name] = counts.get(name, 0) + change.shape[1]
    sigma = {name: (squares[name] / counts[name]).sqrt() for name in squares}

    edges = torch.tensor(EDGES, dtype=torch.float64)
    table = torch.zeros(3, len(EDGES) - 1, dtype=torch.float64)
    flipped: dict[str, Tensor] = {}
    predicted: dict[str, Tensor] = {}
    untouched = images = 0
    layers = spiking_layers(model)
    for part, draw in parts:
        any_flip = torch.zeros(part.stop - part.start, dtype=torch.bool, device=x.device)
        for name, (before, after) in pairs(part, draw).items():
            flip = before.spikes != after.spikes
            steps = sigma[name].view(-1, *[1] * (flip.dim() - 1))
            expected = flip_probability(before.potential, layers[name].v_threshold, steps)
            flipped[name] = flipped.get(name, 0) + flip.flatten(1).double().sum(1)
            predicted[name] = predicted.get(name, 0) + expected.flatten(1).sum(1)
            any_flip |= flip.transpose(0, 1).flatten(1).any(1)
            distance = (before.potential.double() - layers[name].v_threshold).abs().flatten()
            place = (torch.bucketize(distance, edges.to(distance.device), right=True) - 1).clamp(max=len(EDGES) - 2)
            for row, weight in enumerate((None, flip.double().flatten(), expected.flatten())):
                table[row] += torch.bincount(place, weight, minlength=len(EDGES) - 1).double().cpu()
        untouched += int((~any_flip).sum())
        images += len(any_flip)
    total = float(table[0].sum())
    return FlipEvidence(
        perturbation,
        float(table[1].sum()) / total,
        float(table[2].sum()) / total,
        untouched / images,
        tuple(
            DistanceBin(low, high, n / total, hits / n if n else math.nan, guess / n if n else math.nan)
            for low, high, n, hits, guess in zip(EDGES, EDGES[1:], *table.tolist(), strict=False)
        ),
        tuple(
            LayerFlips(
                name,
                tuple(sigma[name].tolist()),
                tuple((flipped[name] / counts[name]).tolist()),
                tuple((predicted[name] / counts[name]).tolist()),
            )
            for name in flipped
        ),
    )
