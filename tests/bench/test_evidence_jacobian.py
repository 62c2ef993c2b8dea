"""The Jacobian and Eq. 10: where the bound holds, and where it does not."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import images, spiking_net
from torch import Tensor, nn

from attacks.threat import Threat
from bench.evidence.jacobian import (
    jacobian,
    jacobian_evidence,
    linf_gain,
    random_point,
    spectral_norm,
    steepest_change,
)
from bench.evidence.probe import Probe
from models.neurons import LIF, NeuronSpec
from models.random import CounterRNG


def probe(n: int, **options: object) -> Probe:
    return Probe(torch.arange(n), **options)  # type: ignore[arg-type]


def linear(weight: Tensor) -> nn.Module:
    model = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.dtype)
    with torch.no_grad():
        model.weight.copy_(weight)
    return model


def matrices(seed: int, k: int, d: int) -> Tensor:
    return torch.randn(3, k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_a_linear_model_s_jacobian_norm_is_its_weight_s(seed: int, k: int, d: int) -> None:
    weight = matrices(seed, k, d)[0]
    found = jacobian(linear(weight), torch.rand(2, d, dtype=torch.float64))
    assert torch.equal(found, weight.expand(2, k, d))
    assert torch.allclose(spectral_norm(found), torch.linalg.svdvals(weight)[0].expand(2))
    assert torch.allclose(spectral_norm(found * 1e-190), 1e-190 * spectral_norm(found), rtol=1e-9, atol=0)


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_the_linf_gain_lies_above_every_corner_and_the_steepest_near_the_best(seed: int, k: int, d: int) -> None:
    matrix = matrices(seed, k, d)
    corners = torch.tensor([[1.0 if i >> j & 1 else -1.0 for j in range(d)] for i in range(2**d)]).double()
    exact = torch.linalg.vector_norm(corners @ matrix.mT, dim=2).amax(1)
    assert (linf_gain(matrix) >= exact * (1 - 1e-12)).all()
    reached = torch.linalg.vector_norm((matrix @ steepest_change(matrix, "linf")[:, :, None])[:, :, 0], dim=1)
    assert (reached <= exact * (1 + 1e-12)).all()
    assert (reached >= 0.6 * exact).all()
    direction = steepest_change(matrix, "l2")
    assert torch.allclose(torch.linalg.vector_norm(direction, dim=1), torch.ones(3, dtype=torch.float64))
    stretched = torch.linalg.vector_norm((matrix @ direction[:, :, None])[:, :, 0], dim=1)
    assert torch.allclose(stretched, spectral_norm(matrix))


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_eq_10_is_tight_for_a_linear_model_in_l2(seed: int, k: int, d: int) -> None:
    model, x = linear(matrices(seed, k, d)[0]), torch.full((3, d), 0.5, dtype=torch.float64)
    found = jacobian_evidence(model, x, probe(3), Threat(Fraction(1, 10), "l2"))
    assert found.printed == found.corrected
    assert found.printed.violated == 0
    assert found.printed.ratio.median == pytest.approx(1, rel=1e-4)
    assert found.measured.median == pytest.approx((0.1 * found.spectral.median) ** 2, rel=1e-4)


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_eq_10_as_printed_fails_for_linear_models_in_linf_and_the_right_norm_holds(seed: int, k: int, d: int) -> None:
    model, x = linear(matrices(seed, k, d)[0]), torch.full((3, d), 0.5, dtype=torch.float64)
    found = jacobian_evidence(model, x, probe(3), Threat(Fraction(1, 10)))
    assert found.printed.violated == 1
    assert found.corrected.violated == 0
    assert found.corrected.ratio.median * (1 + 1e-6) >= 1


def test_eq_10_as_printed_is_too_small_by_the_number_of_pixels() -> None:
    d = 64
    model, x = linear(torch.ones(1, d)), torch.full((1, d), 0.5)
    found = jacobian_evidence(model, x, probe(1), Threat(Fraction(1, 10)))
    assert found.printed.ratio.median == pytest.approx(1 / d, rel=1e-3)
    assert found.corrected.ratio.median == pytest.approx(1, rel=1e-3)


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_eq_10_holds_for_smooth_networks_up_to_the_third_order(seed: int) -> None:
    first, second = matrices(seed, 6, 5)[0], matrices(seed + 1, 3, 6)[0]
    model = nn.Sequential(linear(first), nn.Tanh(), linear(second))
    x, eps = torch.full((3, 5), 0.5, dtype=torch.float64), Fraction(1, 1000)
    found = jacobian_evidence(model, x, probe(3), Threat(eps, "l2"))
    # |tanh''| < 0.77, so the remainder of Eq. 8 is below 0.385 ||W2|| ||W1||^2 eps^2.
    norms = [float(torch.linalg.matrix_norm(w, 2)) for w in (first, second)]
    remainder = 0.385 * norms[1] * norms[0] ** 2 * float(eps) ** 2
    assert math.sqrt(found.measured.high) <= float(eps) * found.spectral.high + remainder


class Step(nn.Module):
    """One LIF neuron with one step; logits (100 S, 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = LIF()

    def forward(self, x: Tensor) -> Tensor:
        spike = self.neuron(x[None])[0]
        return torch.cat([100 * spike, 0 * spike], 1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_reading_of_eq_10_bounds_a_spike(norm: str) -> None:
    # A spike jumps by 100 however small eps; its surrogate's slope is at most 1, so the bound goes with eps^2.
    threat = Threat(Fraction(1, 1000), norm, 0.0, 2.0)  # type: ignore[arg-type]
    found = jacobian_evidence(Step(), torch.tensor([[0.9995]]), probe(1), threat)
    assert found.measured.high == pytest.approx(100**2)
    assert found.spectral.high == pytest.approx(99.95)
    assert found.printed.violated == found.corrected.violated == 1


def test_without_a_flip_the_logits_do_not_move_at_all_whatever_the_surrogate_says() -> None:
    threat = Threat(Fraction(1, 1000), "linf", 0.0, 2.0)
    found = jacobian_evidence(Step(), torch.tensor([[0.9], [1.2]]), probe(2), threat)
    assert found.unmoved == 1
    assert found.spectral.low > 50
    assert math.isnan(found.printed.ratio.median)


def test_spectral_and_frobenius_of_a_spiking_network() -> None:
    model, x = spiking_net(), images(9)
    found = jacobian_evidence(model, x, probe(9, batch=4), Threat(Fraction(1, 10)), 1 - x)
    rows = jacobian(model, x)
    for i in range(9):
        for k in range(4):
            image = x[i : i + 1].clone().requires_grad_()
            (grad,) = torch.autograd.grad(model(image)[0, k], image)
            assert torch.allclose(rows[i, k], grad.flatten().double(), atol=1e-6)
    assert found.spectral.high == pytest.approx(float(torch.linalg.matrix_norm(rows, 2).max()), rel=1e-5)
    assert found.spectral.low <= found.frobenius.low <= 2 * found.spectral.low
    with torch.no_grad():
        change = (model(1 - x) - model(x)).square().sum(1)
    assert found.measured.high >= float(change.max()) * (1 - 1e-5)
    assert found.tried[-1] == "the attack's" and len(found.tried) == 5


def test_each_draw_of_a_noisy_network_is_held_against_itself() -> None:
    model = spiking_net(NeuronSpec("nlif", params=(("noise_var", 0.4),)))
    found = jacobian_evidence(model, images(8), probe(8, draws=3), Threat(Fraction(0)))
    assert found.unmoved == 1
    assert found.measured.high == 0


@given(st.integers(0, 2**31), st.sampled_from(["linf", "l2"]))
@settings(max_examples=20, deadline=None)
def test_random_points_have_the_size_that_was_asked_for(seed: int, norm: str) -> None:
    x = torch.full((5, 1, 4, 4), 0.5)
    threat = Threat(Fraction(1, 10), norm)  # type: ignore[arg-type]
    delta = (random_point(x, threat, CounterRNG(seed, torch.arange(5))).double() - x.double()).flatten(1)
    size = delta.abs() if norm == "linf" else torch.linalg.vector_norm(delta, dim=1)
    assert torch.allclose(size, torch.full_like(size, 0.1), rtol=1e-5)
    assert not torch.equal(delta[0], delta[1])
