"""Gains, leaks and thresholds against loops that spell their equations out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.dynamic import DynamicLIF
from models.homeostatic import HomeostaticLIF
from models.leak import LeakyByStep
from models.neurons import LIF, record_membrane
from models.shaped import ShapedLIF

SEEDS = st.integers(0, 1000)


def currents(seed: int, steps: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, 3, 4, dtype=torch.float64, generator=generator) * 1.5 + 0.3


def fitted(layer: ShapedLIF, current: Tensor) -> ShapedLIF:
    layer(current)
    return layer.double()


def adapting(theta: Tensor | float, reference: Tensor, decay: float = 0.6) -> HomeostaticLIF:
    layer = HomeostaticLIF(decay=decay)
    fitted(layer, torch.zeros(len(reference), 1, 4, dtype=torch.float64))
    with torch.no_grad():
        layer.theta.copy_(torch.as_tensor(theta))
        layer.reference_potential.copy_(reference)
        layer.adapting.fill_(1)
    return layer


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_threshold_follows_the_potential_s_error(seed: int) -> None:
    current, generator = currents(seed), torch.Generator().manual_seed(seed + 1)
    theta = torch.rand(4, dtype=torch.float64, generator=generator) * 0.5
    reference = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    layer = adapting(theta, reference)
    with torch.no_grad(), record_membrane(layer) as membrane:
        spikes = layer(current)
    thresholds = layer.constants(current).v_threshold
    assert isinstance(thresholds, Tensor)
    for n in range(3):
        for i in range(4):
            u, threshold = 0.0, 1.0
            for t in range(5):
                v = 0.6 * u + float(current[t, n, i])
                threshold += float(theta[i]) * (v - float(reference[t, i]))
                fires = v >= threshold
                u = 0.0 if fires else v
                assert float(thresholds[t, n, i]) == pytest.approx(threshold)
                # As far from the threshold that the layer began with as the potential is from the one it meets.
                assert float(membrane[""][t, n, i]) == pytest.approx(v - (threshold - 1.0))
                assert bool(spikes[t, n, i]) == fires


def test_on_its_trajectory_the_threshold_stays() -> None:
    current = currents(0)[:, :1]
    plain = LIF(decay=0.6)
    with torch.no_grad(), record_membrane(plain) as membrane:
        spikes = plain(current)
    layer = adapting(0.3, membrane[""][:, 0])
    with torch.no_grad():
        assert torch.equal(layer(current), spikes)
        thresholds = layer.constants(current).v_threshold
    torch.testing.assert_close(thresholds, torch.ones(5, 1, 4, dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_gradient_goes_through_the_threshold(seed: int) -> None:
    """With the spikes held where they are, V is linear in the currents; d(V - threshold) by finite differences."""
    current, h = currents(seed, 3) * 0.2, 1e-6
    layer = adapting(0.3, torch.zeros(3, 4, dtype=torch.float64))
    # What reaches the last spike through the surrogate of an earlier reset is no part of V's derivative.
    layer.detach_reset = True

    def distance(x: Tensor) -> Tensor:
        with torch.no_grad(), record_membrane(layer) as membrane:
            spikes = layer(x)
        assert not spikes.any()
        return membrane[""][2] - layer.v_threshold

    leaf = current.clone().requires_grad_()
    layer(leaf)[2].sum().backward()
    assert leaf.grad is not None
    slope = layer.surrogate.grad(distance(current))
    for t in range(3):
        moved = torch.zeros_like(current)
        moved[t] = h
        expected = slope * (distance(current + moved) - distance(current - moved)) / (2 * h)
        torch.testing.assert_close(leaf.grad[t], expected, rtol=1e-5, atol=1e-8)


def literal(current: Tensor, gain: Tensor, leak: Tensor) -> Tensor:
    """Autograd through V[t] = leak[t] U[t-1] + gain[t] I[t], spikes differentiated by the triangle."""
    u, total = torch.zeros_like(current[0]), []
    for t in range(len(current)):
        v = leak[t] * u + gain[t] * current[t]
        x = v - 1
        slope = (1 - x.detach().abs()).clamp(min=0)
        # The value of the step, the slope of the surrogate.
        s = (x >= 0).to(x.dtype) + slope * (x - x.detach())
        total.append(s)
        u = (1 - s) * v
    return torch.stack(total)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_gains_and_their_gradients_are_the_equation_s(seed: int) -> None:
    current, generator = currents(seed), torch.Generator().manual_seed(seed + 1)
    weights = torch.randn(current.shape, dtype=torch.float64, generator=generator)
    layer = DynamicLIF(decay=0.6)
    fitted(layer, current)
    layer.p.data = torch.rand(5, dtype=torch.float64, generator=generator) + 0.5
    gain = layer.p.detach().clone().requires_grad_()
    own, other = layer(current), literal(current, gain, torch.full((5,), 0.6, dtype=torch.float64))
    assert torch.equal(own, other)
    (own * weights).sum().backward()
    (other * weights).sum().backward()
    torch.testing.assert_close(layer.p.grad, gain.grad)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_leaks_and_their_gradients_are_the_equation_s(seed: int) -> None:
    current, generator = currents(seed), torch.Generator().manual_seed(seed + 1)
    weights = torch.randn(current.shape, dtype=torch.float64, generator=generator)
    layer = LeakyByStep()
    fitted(layer, current)
    assert (layer.leak == 1).all()
    layer.leak.data = torch.rand(5, 4, dtype=torch.float64, generator=generator) * 1.2
    leak = layer.leak.detach().clone().requires_grad_()
    own, other = layer(current), literal(current, torch.ones(5, dtype=torch.float64), leak)
    assert torch.equal(own, other)
    (own * weights).sum().backward()
    (other * weights).sum().backward()
    torch.testing.assert_close(layer.leak.grad, leak.grad)
