"""The sparse-gradient penalty equals a literal writing-out, and approximates what it stands for."""

import pytest
import torch
from support import images, labels, spiking_net
from torch import Tensor, nn

from defenses import Step
from defenses.sr import SparseGradient, sr
from models.random import CounterRNG


def step_of(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    x = x.detach().requires_grad_()
    return Step(model, x, y, model(x), {}, 1.0, x, CounterRNG(0, torch.arange(len(x))))


def literally(model: nn.Module, x: Tensor, y: Tensor, lam: float, h: float) -> float:
    """Sample by sample, from the definition."""
    total = 0.0
    for image, label in zip(x, y.tolist(), strict=True):
        one = image[None].clone().requires_grad_()
        z = model(one)[0]
        others = [j for j in range(len(z)) if j != label]
        rival = max(others, key=lambda j: z[j].item())
        f = torch.softmax(z[[label, rival]], 0)[0]
        (grad,) = torch.autograd.grad(f, one)
        moved = model(one.detach() + h * grad.sign())[0]
        f_moved = torch.softmax(moved[[label, rival]], 0)[0]
        total += (((f_moved - f) / h) ** 2).item()
    return lam * total / len(x)


def test_it_equals_the_definition() -> None:
    model, x, y = spiking_net(dtype=torch.float64), images(6, dtype=torch.float64), labels(6)
    got = SparseGradient(lam=0.3, h=0.02).penalty(step_of(model, x, y))
    assert got.item() == pytest.approx(literally(model, x, y, 0.3, 0.02), rel=1e-9)
    assert got.item() > 0


def test_for_a_small_step_it_is_the_squared_l1_norm_of_the_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    x, y = images(6, dtype=torch.float64).requires_grad_(), labels(6, 2)
    logits = model(x)
    f = logits.softmax(1).gather(1, y[:, None]).sum()
    (grad,) = torch.autograd.grad(f, x)
    expected = grad.flatten(1).abs().sum(1).square().mean()
    got = SparseGradient(lam=1.0, h=1e-6).penalty(step_of(model, x, y))
    assert got.item() == pytest.approx(float(expected), rel=1e-4)


def test_its_gradient_reaches_the_weights() -> None:
    model, x, y = spiking_net(), images(4), labels(4)
    SparseGradient().penalty(step_of(model, x, y)).backward()
    assert float(model.readout.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_it_asks_for_the_input_gradient() -> None:
    assert all(part.needs_input_gradient for part in sr().parts)
