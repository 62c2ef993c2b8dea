"""The membrane constraint is Eq. 12 to 14 of the paper."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import images, labels, spiking_net

from defenses import Step
from defenses.mc import MembraneConstraint, cosine_rise, mc, threshold_closeness
from models import CounterRNG, record_membrane
from models.kernels import native
from models.kernels.compiler import switched_off
from models.neurons import spiking_layers


def test_closeness_by_hand() -> None:
    v = torch.tensor([[1.0, 0.9, 1.3], [0.5, 0.0, 2.0]], dtype=torch.float64)
    # 0.5, 0.4, 0.2, 0, 0, 0 with delta = 0.5
    assert float(threshold_closeness(v, 1.0, 0.5)) == pytest.approx(1.1 / 6)
    assert float(threshold_closeness(v, 1.0, 0.5, "quadratic")) == pytest.approx((0.25 + 0.16 + 0.04) / 6)


@given(st.floats(0.05, 2), st.floats(0.2, 2), st.sampled_from(["linear", "quadratic"]))
def test_closeness_is_delta_at_the_threshold_and_falls_to_zero(delta: float, v_th: float, form: str) -> None:
    def at_distance(d: float) -> float:
        return float(threshold_closeness(torch.tensor([v_th + d], dtype=torch.float64), v_th, delta, form))

    assert at_distance(0) == pytest.approx(delta if form == "linear" else delta**2)
    assert at_distance(delta) == pytest.approx(0, abs=1e-12)
    assert at_distance(-2 * delta) == 0
    values = [at_distance(d * delta / 10) for d in range(11)]
    assert values == sorted(values, reverse=True)


@pytest.mark.skipif(not native.available(), reason="no kernels here")
@given(st.floats(0.05, 2), st.floats(0.2, 2), st.sampled_from([1, 5, 1000, 70_001]), st.integers(0, 1000))
def test_one_pass_over_memory_gives_the_bits_of_the_gradient(delta: float, v_th: float, count: int, seed: int) -> None:
    v = torch.randn(4, 1, count, generator=torch.Generator().manual_seed(seed))
    # On the edges of the band and on the threshold itself, too.
    v[0, 0, 0], v[1, 0, 0], v[2, 0, 0] = v_th, v_th + delta, v_th - delta
    a, b = v.clone().requires_grad_(), v.clone().requires_grad_()
    fast = threshold_closeness(a, v_th, delta)
    with switched_off():
        slow = threshold_closeness(b, v_th, delta)
    assert float(fast.detach()) == pytest.approx(float(slow.detach()), rel=1e-5, abs=1e-9)
    assert torch.equal(*(torch.autograd.grad(0.3 * value, leaf)[0] for value, leaf in ((fast, a), (slow, b))))


def test_its_gradient_pushes_potentials_away_from_the_threshold() -> None:
    v = torch.tensor([0.9, 1.1, 0.2, 1.8], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(threshold_closeness(v, 1.0, 0.5), v)
    assert grad.tolist() == pytest.approx([0.25, -0.25, 0, 0])


def test_lambda_rises_along_the_cosine() -> None:
    assert [cosine_rise(0.4, p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([0, 0.2 * (1 - math.sqrt(0.5)), 0.2, 0.4])


def test_the_penalty_is_lambda_times_the_sum_over_layers_of_means() -> None:
    model, x, y = spiking_net(T=3), images(5), labels(5)
    with record_membrane(model) as membrane:
        logits = model(x)
    part = MembraneConstraint(lam_max=0.6, delta=0.3)
    got = part.penalty(Step(model, x, y, logits, membrane, 0.5, x, CounterRNG(0, torch.arange(len(x)))))
    expected = 0.3 * sum(torch.relu(0.3 - (v - 1.0).abs()).mean() for v in membrane.values())
    assert torch.allclose(got, torch.as_tensor(expected))
    assert got.item() > 0
    assert len(membrane) == len(spiking_layers(model))


def test_it_uses_each_layer_s_own_threshold() -> None:
    model, x, y = spiking_net(), images(3), labels(3)
    first = next(iter(spiking_layers(model).values()))
    first.v_threshold = 50.0
    with record_membrane(model) as membrane:
        logits = model(x)
    name = next(iter(membrane))
    part = MembraneConstraint(lam_max=1.0)
    rest = {key: v for key, v in membrane.items() if key != name}
    both = part.penalty(Step(model, x, y, logits, membrane, 1.0, x, CounterRNG(0, torch.arange(len(x)))))
    assert torch.equal(both, part.penalty(Step(model, x, y, logits, rest, 1.0, x, CounterRNG(0, torch.arange(len(x))))))


def test_it_asks_for_the_membrane() -> None:
    assert all(part.observes_membrane for part in mc().parts)
