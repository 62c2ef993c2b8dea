"""A small spiking network as plain float64 arrays, and as the deterministic model that truth is about."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.errors import BenchError
from bench.truth.trains import Trains, trains
from models.neurons import LIF, NoisyLIF, spiking_layers
from models.tiny import SpikingMLP

Array = NDArray[np.float64]

# Up to here the rounding of a current, some 1e-16 of it an addition, stays far below `bounds.SLACK`.
_LARGEST = 1e4


@dataclass(frozen=True)
class Network:
    """A spiking perceptron with its normalisation folded into the first layer.

    Attributes:
        first: weight [H1, P] and bias [H1] from pixels in [0, 1] to the first layer's currents.
        hidden: weight and bias from each spiking layer to the next one's currents.
        readout: weight [K, H] and bias [K].
        T: time steps.
        decay, v_threshold, v_reset: of every neuron.
        trains: what a first-layer neuron can fire.
    """

    first: tuple[Array, Array]
    hidden: tuple[tuple[Array, Array], ...]
    readout: tuple[Array, Array]
    T: int
    decay: float
    v_threshold: float
    v_reset: float
    trains: Trains

    @property
    def neurons(self) -> int:
        """H1, the neurons of the first layer."""
        return int(self.first[0].shape[0])

    def currents(self, x: Array) -> Array:
        """First-layer currents [N, H1] of images [N, P]."""
        weight, bias = self.first
        return x @ weight.T + bias


def noise_off(model: nn.Module) -> nn.Module:
    """A float64 copy of a model without neuron noise, in eval mode: the function that truth speaks about."""
    double = copy.deepcopy(model).double().eval()
    for layer in spiking_layers(double).values():
        if isinstance(layer, NoisyLIF):
            layer.noise_on = False
    return double


def network_of(model: nn.Module) -> Network:
    """Read a model's weights; noise is ignored, see `noise_off`.

    Raises:
        BenchError: another architecture than `models.tiny.SpikingMLP`, an encoding, other neurons, or vast weights.
    """
    if not isinstance(model, SpikingMLP):
        raise BenchError(
            f"exact robust accuracy is known only for spiking perceptrons, not for {type(model).__name__}; "
            "use --model tiny"
        )
    if model.encoder is not None:
        raise BenchError("exact robust accuracy is known only for the direct encoding; leave the encoding defense out")
    layers = model.layers()
    for *_, neuron in layers:
        if type(neuron) not in (LIF, NoisyLIF):
            other = type(neuron).__name__
            raise BenchError(f"exact robust accuracy is known only for LIF neurons; leave out what builds {other}")
    linear, norm, neuron = layers[0]
    # One statistic a channel.
    repeats = linear.in_features // len(model.mean)
    mean, std = (_array(buffer).reshape(-1).repeat(repeats) for buffer in (model.mean, model.std))
    weight, bias = _affine(linear, norm)
    weight = weight / std
    first, readout = (weight, bias - weight @ mean), (_array(model.readout.weight), _array(model.readout.bias))
    hidden = tuple(_affine(linear, norm) for linear, norm, _ in layers[1:])
    if max(float((np.abs(w).sum(1) + np.abs(b)).max()) for w, b in (first, *hidden, readout)) > _LARGEST:
        raise BenchError(f"currents above {_LARGEST:g} round too coarsely for a proof; train with weight decay")
    return Network(
        first,
        hidden,
        readout,
        model.T,
        neuron.decay,
        neuron.v_threshold,
        neuron.v_reset,
        trains(model.T, neuron.decay, neuron.v_threshold, neuron.v_reset),
    )


def _affine(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Array, Array]:
    """Weight and bias of a linear layer and the batch normalisation after it, in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    bias = _array(norm.bias) + (_array(linear.bias) - _array(norm.running_mean)) * scale
    return _array(linear.weight) * scale[:, None], bias


def _array(tensor: torch.Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().double().numpy())
