"""The noiseless gradient: noise off, and the firing probability's own derivative."""

import math

import pytest
import torch
from slow import KEY, NEURONS, agree, batch, layer_gradient, membrane, network
from torch import Tensor

from attacks.gradients import estimating, input_gradient
from attacks.gradients.noiseless import Noiseless
from attacks.losses import cross_entropy
from models.neurons import LIF, NoisyLIF
from models.random import noise_stream
from models.surrogates import ArcTan


def noiseless(layer: LIF, current: Tensor, noise: Tensor | None) -> Tensor:
    def slope(_: int, v: Tensor) -> Tensor:
        if isinstance(layer, NoisyLIF):
            density = torch.distributions.Normal(v.new_tensor(0), v.new_tensor(math.sqrt(layer.noise_var)))
            return density.log_prob(v - layer.v_threshold).exp()
        return (1 - (v - layer.v_threshold).abs()).clamp(min=0)

    return membrane(layer, current, None, slope)


@pytest.mark.parametrize("kind", NEURONS)
def test_it_is_bptt_without_noise(kind: str) -> None:
    agree(kind, Noiseless(), noiseless)


def test_it_is_the_derivative_of_how_often_the_neuron_fires() -> None:
    """By Monte Carlo: the same noise at two potentials on either side."""
    layer, v, h = NoisyLIF(0.4, decay=0.0), torch.linspace(-0.5, 2.5, 7, dtype=torch.float64), 0.1
    with noise_stream(layer, 3, torch.arange(4000)), torch.no_grad():
        above = layer((v + h).expand(50, 4000, 7)).mean((0, 1))
    with noise_stream(layer, 3, torch.arange(4000)), torch.no_grad():
        below = layer((v - h).expand(50, 4000, 7)).mean((0, 1))
    current = v[None, None]
    slope = layer_gradient(layer, Noiseless(), current, torch.ones_like(current)).flatten()
    assert torch.allclose(slope, (above - below) / (2 * h), atol=0.015)


def test_where_the_noise_is_off_the_layer_keeps_its_own_surrogate() -> None:
    current = torch.rand(3, 2, 8, dtype=torch.float64) * 2
    for silent in (NoisyLIF(0.0, surrogate=ArcTan(3)), NoisyLIF(0.4, surrogate=ArcTan(3))):
        silent.noise_on = False
        leaf = current.clone().requires_grad_()
        (own,) = torch.autograd.grad(silent(leaf).sum(), leaf)
        assert torch.equal(layer_gradient(silent, Noiseless(), current, torch.ones_like(current)), own)


def test_the_logits_are_the_noisy_network_s() -> None:
    model, (x, y) = network("noisy"), batch()
    with noise_stream(model, KEY, torch.arange(len(x))), estimating(model, Noiseless()):
        got = [input_gradient(model, x, y, cross_entropy) for _ in range(2)]
    with noise_stream(model, KEY, torch.arange(len(x))), torch.no_grad():
        own = [model(x) for _ in range(2)]
    for at, logits in zip(got, own, strict=True):
        assert torch.equal(at.logits, logits)
    assert not torch.equal(own[0], own[1])
    assert torch.equal(got[0].grad, got[1].grad)
