"""Random gates: how often they open, and how that is differentiated."""

import pytest
import torch
from torch import Tensor

from attacks.gradients import estimating
from attacks.gradients.noiseless import Noiseless
from models.gates import GatedLIF, gates
from models.random import noise_stream

P = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.99], dtype=torch.float64)


def layer(theta: Tensor) -> GatedLIF:
    made = GatedLIF(decay=0.0)
    made(torch.zeros(2, 1, len(theta)))
    made.theta.data = theta
    return made


def test_a_gate_is_open_as_often_as_it_should_be_and_always_at_one() -> None:
    gated = layer(torch.tensor([-3.0, 0.05, 0.1, 0.4, 0.8, 1.0, 1.7]))
    with noise_stream(gated, 4, torch.arange(20_000)), torch.no_grad():
        rate = gated(torch.full((2, 20_000, 7), 2.0)).mean((0, 1))
    expected = torch.tensor([0.1, 0.1, 0.1, 0.4, 0.8, 1.0, 1.0])
    torch.testing.assert_close(rate, expected, rtol=0, atol=0.01)
    assert (rate[-2:] == 1).all()
    gated.noise_on = False
    assert torch.equal(gated(torch.full((2, 3, 7), 2.0)), expected.expand(2, 3, 7))
    assert not gated.stochastic


def relaxed(p: Tensor) -> Tensor:
    """E s of the relaxation, integrated over u."""
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    return torch.sigmoid((p.logit()[:, None] - u.logit()) / 0.5).mean(1)


def test_the_gradient_is_the_relaxation_s_and_points_the_right_way() -> None:
    p, h = P.clone().requires_grad_(), 1e-4
    u = torch.rand(10, 100_000, len(P), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gates(p, 1 - u).mean((0, 1)).sum().backward()
    assert p.grad is not None
    exact = (relaxed(P + h) - relaxed(P - h)) / (2 * h)
    torch.testing.assert_close(p.grad, exact, rtol=0.03, atol=0)
    # The derivative of P(open) itself is 1; the relaxation is biased, and not by much.
    assert ((exact > 0.8) & (exact < 1.6)).all()


def test_no_single_draw_throws_a_probability_far() -> None:
    p = torch.tensor([0.1, 1 - 2.0**-24, 1.0], requires_grad=True)
    u = torch.tensor([2.0**-30, 2.0**-10, 0.5, 1 - 2.0**-24, 1.0]).view(1, 5, 1).expand(1, 5, 3)
    gates(p, u).sum().backward()
    assert p.grad is not None and (p.grad >= 0).all() and (p.grad <= 5 * 501).all()
    assert p.grad[2] == 0


def test_without_noise_an_attacker_sees_the_expectation() -> None:
    gated = layer(torch.tensor([0.25, 0.5, 1.0]))
    current = torch.full((2, 4, 3), 1.5, requires_grad=True)
    with estimating(gated, Noiseless()):
        seen = gated(current)
    torch.testing.assert_close(seen, torch.tensor([0.25, 0.5, 1.0]).expand(2, 4, 3))
    seen.sum().backward()
    assert current.grad is not None
    torch.testing.assert_close(current.grad, 0.5 * seen.detach())
    assert set(gated(current).detach().unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("split", [1, 3])
def test_an_image_meets_its_own_gates_in_any_batch(split: int) -> None:
    gated, current = layer(torch.full((50,), 0.5)), torch.full((2, 8, 50), 1.5)
    rows = torch.arange(8)
    with torch.no_grad():
        with noise_stream(gated, 1, rows):
            whole = gated(current)
        parts = []
        for index in rows.split(split):
            with noise_stream(gated, 1, index):
                parts.append(gated(current[:, index]))
    assert torch.equal(whole, torch.cat(parts, 1))
    assert 0.4 < whole.mean() < 0.6
