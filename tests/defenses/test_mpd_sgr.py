"""The overlap is the normal distribution's mass in the band, by layer, step and channel."""

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from support import images, labels, spiking_net
from torch import nn

from defenses import Step
from defenses.mpd_sgr import PotentialOverlap, mpd_sgr, overlap
from models.neurons import record_membrane
from models.random import CounterRNG


def potentials(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.4


def test_it_is_the_integral_of_the_density_over_the_support() -> None:
    v = potentials(2, 6, 3, 4, 5)
    got = overlap(v, 1.0, 0.7)
    assert got.shape == (2, 3)
    for t in range(2):
        for c in range(3):
            x = v[t, :, c].flatten().numpy() - 1
            want, _ = quad(norm(x.mean(), x.std()).pdf, -0.7, 0.7, epsabs=1e-12)
            assert float(got[t, c]) == pytest.approx(want, abs=1e-6)


def test_it_is_the_share_of_normal_potentials_near_the_threshold() -> None:
    v = potentials(1, 1000, 1, 20, 20)
    share = ((v - 1).abs() < 1).double().mean()
    assert float(overlap(v, 1.0, 1.0)) == pytest.approx(float(share), abs=0.005)


def test_its_gradient_is_the_finite_difference() -> None:
    for v in (potentials(2, 4, 2, 2, 2), potentials(2, 5, 3)):
        assert torch.autograd.gradcheck(lambda v: overlap(v, 1.0, 1.0), (v.requires_grad_(),))


def test_silent_channels_and_coarse_numbers_do_no_harm() -> None:
    silent = torch.zeros(2, 4, 3, requires_grad=True)
    overlap(silent, 1.0, 0.5).sum().backward()
    assert silent.grad is not None and bool(torch.isfinite(silent.grad).all())
    v = potentials(2, 64, 3, 8, 8)
    coarse = overlap(v.bfloat16(), 1.0, 1.0)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse.double(), overlap(v, 1.0, 1.0), atol=5e-3, rtol=0)


def test_the_penalty_weighs_every_layer_step_and_channel_alike_and_training_on_it_empties_the_band() -> None:
    model, x, y = spiking_net().train(), images(16), labels(16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    part = PotentialOverlap(eta=2.0, g=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    values = []
    for _ in range(30):
        with record_membrane(model) as membrane:
            logits = model(x)
        penalty = part.penalty(Step(model, x, y, logits, membrane, 1.0, x, CounterRNG(0, torch.arange(16))))
        cells = torch.cat([overlap(v, 1.0, 1.0).flatten() for v in membrane.values()])
        torch.testing.assert_close(penalty, 2 * cells.mean())
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        values.append(float(penalty.detach()))
    assert values[-1] < 0.7 * values[0]


def test_impossible_settings_are_refused() -> None:
    for arguments in ({"eta": -1.0}, {"g": 0.0}, {"eta": float("nan")}):
        with pytest.raises(ValueError, match="eta must not be negative and g must be positive"):
            mpd_sgr(**arguments)
    assert all(part.observes_membrane for part in mpd_sgr().parts)
