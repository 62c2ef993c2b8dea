"""Crafted noise: none in the first period, inside the ball in every step, and against the network."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import images, labels, spiking_net

from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy
from attacks.threat import Box
from defenses import ConflictError, Setting
from defenses.at import at
from defenses.hire import CraftedNoise, hire
from models.random import CounterRNG

EPS = Fraction(8, 255)


def part(T: int = 4, **arguments: object) -> CraftedNoise:
    (found,) = hire(**arguments).settled(Setting("cnn-small", EPS, T=T)).parts  # type: ignore[arg-type]
    assert isinstance(found, CraftedNoise)
    return found


def crafted(noise: CraftedNoise, x: torch.Tensor) -> torch.Tensor:
    model = spiking_net(T=noise.T).train()
    shown = noise.perturb(model, x, labels(len(x)), CounterRNG(0, torch.arange(len(x))))
    assert all(module.training for module in model.modules())
    return shown


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 7), st.integers(2, 4), st.integers(0, 3))
def test_noise_lies_in_the_ball_and_the_box_at_every_step(T: int, periods: int, twice: int) -> None:
    if periods > T:
        return
    noise, x = part(T, periods=periods, alpha=EPS * twice / 2), images(4)
    shown = crafted(noise, x)
    assert shown.shape == (4, T, 1, 8, 8)
    assert float((shown.double() - x.double().unsqueeze(1)).abs().max()) <= float(EPS)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
    length = T // periods
    assert torch.equal(shown[:, :length], x.unsqueeze(1).expand(-1, length, -1, -1, -1))
    for period in range(1, periods):
        end = T if period == periods - 1 else (period + 1) * length
        held = shown[:, period * length : end]
        assert torch.equal(held, held[:, :1].expand_as(held))


def test_two_periods_are_a_sign_step_of_the_first_ones_gradient() -> None:
    noise, x, y = part(4), images(6), labels(6)
    shown = crafted(noise, x)
    model = spiking_net(T=4)
    frames = x.unsqueeze(1).expand(-1, 4, -1, -1, -1).contiguous()
    with frozen(model):
        grad = input_gradient(model, frames, y, cross_entropy).grad[:, :2].sum(1)
    want = (x + float(EPS) * grad.sign()).clamp(0, 1)
    torch.testing.assert_close(shown[:, 3], want)
    assert not torch.equal(shown[:, 3], x)


def test_training_inputs_hurt() -> None:
    x, y, model = images(32), labels(32), spiking_net(T=4)
    shown = crafted(part(4, periods=4), x)
    with torch.no_grad():
        harder = cross_entropy(model(shown), y) > cross_entropy(model(x), y)
    assert float(harder.double().mean()) > 0.8


def test_frames_get_noise_in_their_own_box() -> None:
    (noise,) = hire(eps=Fraction(1, 2)).settled(Setting("cnn-small", EPS, Box(0, 3), 5, True)).parts
    frames = images(4, 5, 1, 8, 8) * 3
    shown = noise.perturb(spiking_net(), frames, labels(4), CounterRNG(0, torch.arange(4)))
    assert torch.equal(shown[:, :2], frames[:, :2]) and not torch.equal(shown[:, 2:], frames[:, 2:])
    assert float((shown.double() - frames.double()).abs().max()) <= 0.5
    assert float(shown.max()) <= 3


def test_the_networks_steps_are_not_told_twice() -> None:
    one, two = part(4), part(8)
    assert one != two and one.identity() == two.identity()
    assert one.identity() != replace(one, periods=4).identity()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="periods must be at least 2"):
        hire(periods=1)
    with pytest.raises(ValueError, match="alpha must not be negative"):
        hire(alpha=Fraction(-1))
    with pytest.raises(ValueError, match="3 time steps cannot be cut into 4 periods; take T of at least 4"):
        part(3, periods=4)
    with pytest.raises(ValueError, match=r"did you mean 8/255\?"):
        part(4, eps=Fraction(8))
    with pytest.raises(ConflictError, match="both decide the input"):
        hire() + at()
