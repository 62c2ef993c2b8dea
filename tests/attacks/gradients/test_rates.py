"""BPTR and RGA against their formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow import NEURONS, agree, layer_gradient, potentials, with_gradient
from torch import Tensor

from attacks.gradients.rates import BPTR, RGA
from models.neurons import LIF

KINDS = pytest.mark.parametrize("kind", NEURONS)


def bptr(layer: LIF, current: Tensor, noise: Tensor | None) -> Tensor:
    spikes, _ = potentials(layer, current, noise)
    return with_gradient(spikes, ((spikes.sum(0) > 0).to(current.dtype).expand_as(current), current))


def rate_slope(mean_current: float, threshold: float, tau: float, gamma: float) -> float:
    """methods: k of the current in units of the threshold; the change of units divides by the threshold."""
    c = mean_current / threshold
    if c < 0 or c > 2:
        return 0.0
    return (gamma if c < 1 - tau else (1 - gamma + gamma * tau) / (1 + tau)) / threshold


def rga(layer: LIF, current: Tensor, noise: Tensor | None, gamma: float = 0.2) -> Tensor:
    spikes, _ = potentials(layer, current, noise)
    mean = sum(current[t] for t in range(len(current))) / len(current)
    assert isinstance(mean, Tensor)
    slopes = [rate_slope(c, layer.v_threshold, layer.decay, gamma) for c in mean.detach().flatten().tolist()]
    slope = torch.tensor(slopes, dtype=current.dtype).view(mean.shape)
    return with_gradient(spikes, (slope.expand_as(current), current))


@KINDS
def test_bptr_passes_through_neurons_that_fired(kind: str) -> None:
    agree(kind, BPTR(), bptr)


@KINDS
@pytest.mark.parametrize("gamma", [0.2, 0.7])
def test_rga_multiplies_by_the_rate_s_slope(kind: str, gamma: float) -> None:
    agree(kind, RGA(gamma), lambda layer, current, noise: rga(layer, current, noise, gamma))


@pytest.mark.parametrize(("tau", "theta"), [(0.5, 1.0), (0.25, 2.0), (1.0, 0.5), (0.0, 1.0)])
def test_rga_s_pieces_and_where_they_meet(tau: float, theta: float) -> None:
    layer, gamma = LIF(decay=tau, v_threshold=theta), 0.25
    firing = (1 - gamma + gamma * tau) / (1 + tau)
    expected = {-0.01: 0.0, 0.0: gamma, 1 - tau - 0.01: gamma, 1 - tau: firing, 1.0: firing, 2.0: firing, 2.01: 0.0}
    if tau == 1:
        expected |= {-0.01: 0.0, 0.0: firing}
    units = torch.tensor(sorted(expected), dtype=torch.float64)
    # The time-mean counts, not the single step.
    current = torch.stack([units * theta * 2, torch.zeros_like(units)])[:, None]
    got = layer_gradient(layer, RGA(gamma), current, torch.ones_like(current))
    wanted = torch.tensor([expected[c] for c in sorted(expected)], dtype=torch.float64) / theta
    assert torch.allclose(got, wanted.expand_as(got), rtol=1e-12, atol=0)


def test_the_non_leaky_neuron_s_slope_is_a_half() -> None:
    current = torch.linspace(0, 2, 9, dtype=torch.float64)[None, None]
    got = layer_gradient(LIF(decay=1.0), RGA(), current, torch.ones_like(current))
    assert torch.allclose(got, torch.full_like(got, 0.5))


@given(st.floats(0.01, 1), st.floats(0, 1), st.floats(0.2, 3))
def test_the_rate_rises_from_0_to_1(gamma: float, tau: float, theta: float) -> None:
    n = 20_000
    current = ((torch.arange(n, dtype=torch.float64) + 0.5) / n * 2.2 * theta)[None, None]
    slope = layer_gradient(LIF(decay=tau, v_threshold=theta), RGA(gamma), current, torch.ones_like(current))
    assert float(slope.mean()) * 2.2 * theta == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("gamma", [0.0, -0.1, 1.1, float("nan")])
def test_an_impossible_gamma_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"gamma must lie in \(0, 1\]"):
        RGA(gamma)
