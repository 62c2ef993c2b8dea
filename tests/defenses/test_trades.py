"""TRADES: the divergence is one, the adversary is inside its ball and finds it, the loss is the definition."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from scipy.special import rel_entr, softmax
from support import images, labels, spiking_net
from torch import nn
from torch.nn import functional

from attacks.projections import ball
from attacks.threat import Box, Threat
from defenses import ConflictError, Setting, Step
from defenses.at import at
from defenses.nlif import nlif
from defenses.trades import DivergentInputs, InvarianceLoss, divergence, trades
from models.random import CounterRNG

EPS = Fraction(8, 255)
RNG = CounterRNG(0, torch.arange(32))


def settled(setting: Setting) -> DivergentInputs:
    part = next(part for part in trades().settled(setting).parts if isinstance(part, DivergentInputs))
    assert isinstance(part, DivergentInputs)
    return part


def test_the_divergence_is_the_textbooks() -> None:
    z, z_clean = (torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    got = divergence(z, z_clean, 2.0)
    want = 4 * rel_entr(softmax(z_clean.numpy() / 2, 1), softmax(z.numpy() / 2, 1)).sum(1)
    torch.testing.assert_close(got, torch.from_numpy(want))
    assert float(divergence(z, z + 3, 2.0).abs().max()) < 1e-12
    assert float(got.min()) > 0
    inputs = (z.requires_grad_(), z_clean.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: divergence(a, b, 2.0), inputs)


def test_training_images_lie_in_the_ball_and_diverge_more_than_random_ones() -> None:
    model, x, y = spiking_net().train(), images(32), labels(32)
    part = replace(settled(Setting("cnn-small", EPS)), eps=EPS, alpha=EPS * 3 / 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moved = part.perturb(model, x, y, RNG)
    assert torch.equal(moved, part.perturb(model, x, y, RNG))
    assert float((moved.double() - x.double()).abs().max()) <= float(EPS)
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    random = ball(x, Threat(EPS)).random_point(RNG)
    model.eval()
    with torch.no_grad():
        crafted, chance = (divergence(model(points), model(x), 2.0).mean() for points in (moved, random))
    assert float(crafted) > 2 * float(chance)


def test_frames_keep_to_their_box() -> None:
    frames = images(4, 2, 1, 8, 8) * 3
    part = settled(Setting("cnn-small", EPS, Box(0, 3), 2, True, Fraction(1, 2)))
    moved = part.perturb(spiking_net(), frames, labels(4), CounterRNG(0, torch.arange(4)))
    assert float((moved.double() - frames.double()).abs().max()) <= 0.5
    assert float(moved.max()) <= 3 and not torch.equal(moved, frames)


def test_the_loss_is_the_definition_and_zero_divergence_is_the_cross_entropy() -> None:
    model, clean, y = spiking_net(dtype=torch.float64), images(4, dtype=torch.float64), labels(4)
    x = (clean + 0.1).clamp(max=1)
    z, z_clean = model(x), model(clean)
    step = Step(model, x, y, z, {}, 1.0, clean, RNG)
    got = InvarianceLoss(3.0, 2.0).task_loss(step)
    p, q = torch.softmax(z_clean / 2, 1), torch.softmax(z / 2, 1)
    want = functional.cross_entropy(z_clean, y) + 3 * 4 * (p * (p / q).log()).sum() / 4
    torch.testing.assert_close(got, want)
    same = Step(model, clean, y, z_clean, {}, 1.0, clean, RNG)
    torch.testing.assert_close(InvarianceLoss().task_loss(same), functional.cross_entropy(z_clean, y))
    got.backward()
    assert isinstance(model.readout, nn.Linear) and model.readout.weight.grad is not None
    assert float(model.readout.weight.grad.abs().sum()) > 0


def test_defaults_follow_the_data_set_or_are_the_papers() -> None:
    named = settled(Setting("vgg11", Fraction(2, 255), eps=Fraction(1, 10)))
    assert (named.eps, named.alpha) == (Fraction(1, 10), Fraction(3, 80))
    papers = settled(Setting("vgg11", Fraction(2, 255)))
    assert (papers.eps, papers.alpha, papers.steps) == (EPS, Fraction(3, 255), 4)
    assert papers.temperature == 2.0


def test_it_brings_its_own_adversary() -> None:
    with pytest.raises(ConflictError, match="both decide the input"):
        trades() + at()
    assert (trades() + nlif()).name == "nlif+trades"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"beta": -1.0}, "beta must not be negative"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"alpha": Fraction(-1)}, "alpha must not be negative"),
        ({"eps": Fraction(-1)}, "eps must not be negative"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trades(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"did you mean 8/255\?"):
        trades(eps=Fraction(8)).settled(Setting("vgg11", EPS))
