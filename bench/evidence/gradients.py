"""How much of the attacker's gradient is exactly zero, at the input and in every spiking layer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.losses import LOSSES
from bench.evidence.numbers import Numbers, Spread, spread
from bench.evidence.probe import Probe, grads_of, recording_currents, shares, traces
from models.neurons import spiking_layers


@dataclass(frozen=True)
class InputGradient(Numbers):
    """The gradient of one loss in the input.

    Attributes:
        loss: `ce` or `margin`. Cross-entropy alone also vanishes where the softmax is sure of itself;
            what is zero for the margin too is the network's doing.
        zero_share: mean share of exactly zero entries, in [0, 1].
        zero_images: share of images whose whole gradient is exactly zero: no gradient attack moves them.
        hoyer: Hoyer's sparseness of the gradients that are not all zero, in [0, 1].
        norm: l2 norm.
    """

    loss: str
    zero_share: float
    zero_images: float
    hoyer: Spread
    norm: Spread


@dataclass(frozen=True)
class LayerGradient(Numbers):
    """The gradient inside one spiking layer, by time step [T].

    Attributes:
        name: the layer.
        zero_gradient: share of neurons whose input current has an exactly zero gradient of the loss. The more
            telling of the two: nothing done to this current at this step moves the loss, whether the neuron's own
            slope, its later steps or every path behind it is what blocks.
        zero_slope: share of neurons whose surrogate slope is exactly zero at the potential that met the
            threshold. The local cause: neurons out of the surrogate's reach. Of the network's own surrogate where
            the attacker's gradient is none.
    """

    name: str
    zero_gradient: tuple[float, ...]
    zero_slope: tuple[float, ...]


def hoyer(values: Tensor) -> Tensor:
    """Hoyer's sparseness of each row: (sqrt(D) - ||g||_1 / ||g||_2) / (sqrt(D) - 1).

    0 for a row of equal magnitudes, 1 for a single non-zero entry, whatever the row's scale.

    Source: Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 2004.

    Args:
        values: [N, *] with D >= 2 entries a row.

    Returns:
        [N] float64; NaN for a row of zeros.

    Raises:
        ValueError: rows of one entry, of which sparseness says nothing.
    """
    rows = values.detach().flatten(1).double()
    if rows.shape[1] < 2:
        raise ValueError("sparseness needs at least two entries a row")
    root = math.sqrt(rows.shape[1])
    # Squares of a gradient of 1e-200 would underflow.
    rows = rows / rows.abs().amax(1, keepdim=True)
    ratio = rows.abs().sum(1) / torch.linalg.vector_norm(rows, dim=1)
    sparseness: Tensor = (root - ratio) / (root - 1)
    return sparseness.clamp(0, 1)


def input_gradients(
    model: nn.Module, x: Tensor, y: Tensor, probe: Probe, losses: tuple[str, ...] = ("ce", "margin")
) -> tuple[InputGradient, ...]:
    """Sparsity of the input gradient (TGO, Fig. 5 and Appendix F, Eq. 45), each loss by itself.

    Exactly zero means zero in the arithmetic of the attack: an underflow counts, since the attack
    meets it too. Cost: 1 forward and one backward a loss, for each draw.

    Args:
        model: maps x to logits [N, K].
        x: inputs [N, *].
        y: labels [N].
        probe: gradient and noise.
        losses: names in `attacks.losses.LOSSES`.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in losses}
    for part, draw in probe.parts():
        inputs = x[part].detach().requires_grad_()
        with probe.realisation(model, part, draw), torch.enable_grad():
            logits = model(inputs)
            for name in losses:
                (grad,) = grads_of(LOSSES[name](logits, y[part]).sum(), [inputs], keep=True)
                found[name].append(grad.flatten(1))
    return tuple(_summary(name, torch.cat(grads)) for name, grads in found.items())


def _summary(loss: str, grads: Tensor) -> InputGradient:
    zero = grads == 0
    return InputGradient(
        loss,
        float(zero.double().mean()),
        float(zero.all(1).double().mean()),
        spread(hoyer(grads)),
        spread(torch.linalg.vector_norm(grads.double(), dim=1)),
    )


def layer_gradients(
    model: nn.Module, x: Tensor, y: Tensor, probe: Probe, loss: str = "ce"
) -> tuple[LayerGradient, ...]:
    """Share of zero gradients and zero slopes in every spiking layer and time step.

    Cost: 2 forwards and 1 backward for each draw.

    Args:
        model, x, y, probe: as `input_gradients`.
        loss: what the attacker maximises.
    """
    gradient: dict[str, Tensor] = {}
    slope: dict[str, Tensor] = {}
    layers = spiking_layers(model)
    for part, draw in probe.parts():
        weight = (part.stop - part.start) / (len(x) * probe.draws)
        inputs = x[part].detach().requires_grad_()
        with probe.realisation(model, part, draw), recording_currents(model) as currents, torch.enable_grad():
            value = LOSSES[loss](model(inputs), y[part]).sum()
            grads = grads_of(value, list(currents.values()))
        for name, grad in zip(currents, grads, strict=True):
            gradient[name] = gradient.get(name, 0) + shares(grad == 0) * weight
        with probe.realisation(model, part, draw):
            for name, trace in traces(model, x[part]).items():
                flat = layers[name].surrogate.grad(trace.potential - layers[name].v_threshold) == 0
                slope[name] = slope.get(name, 0) + shares(flat) * weight
    return tuple(LayerGradient(name, tuple(gradient[name].tolist()), tuple(slope[name].tolist())) for name in gradient)
