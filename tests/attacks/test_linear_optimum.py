"""On a linear two-class model the worst point of the ball is known in closed form: attacks must reach it."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks import Threat
from attacks.apgd import apgd
from attacks.fgsm import fgsm, rfgsm
from attacks.losses import margin
from attacks.mtpgd import mtpgd
from attacks.pgd import pgd
from attacks.sapgd import sapgd
from attacks.square import square
from models.random import CounterRNG

EPS = Fraction(8, 255)


class Linear(nn.Module):
    """logits = W x + b on flattened inputs."""

    def __init__(self, dimension: int, seed: int, classes: int = 2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, dimension, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(classes, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.flatten(1), self.weight, self.bias)


def problem(n: int, shape: tuple[int, ...], seed: int, inset: float = 0.0) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """(model, x in [inset, 1 - inset], y, slope of the margin in x)."""
    model = Linear(torch.Size(shape).numel(), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    x = inset + (1 - 2 * inset) * torch.rand(n, *shape, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (n,), generator=generator)
    slope = (model.weight[1 - y] - model.weight[y]).detach().view_as(x)
    return model, x, y, slope


SIZES = st.tuples(st.integers(1, 9), st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))


@given(SIZES, st.integers(0, 10_000), st.sampled_from(["ce", "margin"]))
def test_linf_attacks_reach_the_corner(size: tuple[int, tuple[int, ...]], seed: int, loss: str) -> None:
    model, x, y, slope = problem(*size, seed)
    rng, threat = CounterRNG(seed, torch.arange(len(x))), Threat(EPS)
    optimum = (x + float(EPS) * slope.sign()).clamp(0, 1)
    highest = margin(model(optimum), y)
    # The steps span the ball from any start: 2 eps at the furthest.
    walked = pgd(model, x, y, threat, steps=10, alpha=float(EPS) / 4, rng=rng, loss=loss)[10].last
    for x_adv in (fgsm(model, x, y, threat, rng=rng, loss=loss), walked):
        assert torch.allclose(x_adv, optimum, rtol=0, atol=1e-15)
        assert torch.allclose(margin(model(x_adv), y), highest, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(0, 10_000), st.sampled_from(["ce", "margin"]))
def test_attacks_with_schedules_reach_the_corner(size: tuple[int, tuple[int, ...]], seed: int, loss: str) -> None:
    model, x, y, slope = problem(*size, seed)
    rng, threat = CounterRNG(seed, torch.arange(len(x))), Threat(EPS)
    highest = margin(model((x + float(EPS) * slope.sign()).clamp(0, 1)), y)
    runs = {
        "apgd": apgd(model, x, y, threat, steps=3, rng=rng, loss=loss)[3].last,
        "mtpgd": mtpgd(model, x, y, threat, steps=10, alpha=float(EPS) / 4, rng=rng)[10].last,
    }
    for name, x_adv in runs.items():
        assert torch.allclose(margin(model(x_adv), y), highest, rtol=0, atol=1e-12), name


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(0, 10_000))
def test_sapgd_reaches_the_corner_up_to_its_least_steps(size: tuple[int, tuple[int, ...]], seed: int) -> None:
    # A pixel whose gradient is constant moves by the whole step from the second step on, whatever its size.
    model, x, y, slope = problem(*size, seed)
    highest = margin(model((x + float(EPS) * slope.sign()).clamp(0, 1)), y)
    x_adv = sapgd(model, x, y, Threat(EPS), steps=40, rng=CounterRNG(seed, torch.arange(len(x))), loss="margin")[
        40
    ].last
    assert torch.allclose(margin(model(x_adv), y), highest, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_square_reaches_the_corner_of_a_small_image(seed: int) -> None:
    model, x, _, _ = problem(3, (1, 2, 3), seed)
    y = torch.zeros(3, dtype=torch.long)
    corner = (x + float(EPS) * (model.weight[1] - model.weight[0]).sign().view(1, 2, 3)).clamp(0, 1)
    with torch.no_grad():
        # Only a correct image is queried to the end.
        model.bias[0] += margin(model(corner), y).amax() + 1
        highest = margin(model(corner), y)
        x_adv = square(model, x, y, Threat(EPS), steps=300, rng=CounterRNG(seed, torch.arange(3)))[300].last
        assert torch.allclose(margin(model(x_adv), y), highest, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(SIZES, st.integers(0, 10_000))
def test_l2_attacks_reach_the_pole(size: tuple[int, tuple[int, ...]], seed: int) -> None:
    # Away from the box, or clipping would move the optimum.
    model, x, y, slope = problem(*size, seed, inset=0.3)
    rng, threat = CounterRNG(seed, torch.arange(len(x))), Threat(Fraction(1, 4), "l2")
    norm = slope.flatten(1).norm(dim=1)
    highest = (margin(model(x), y) + 0.25 * norm).detach()
    one_step = fgsm(model, x, y, threat, rng=rng)
    assert torch.allclose(margin(model(one_step), y), highest, rtol=1e-6, atol=1e-6)
    runs = {
        "pgd": pgd(model, x, y, threat, steps=60, alpha=0.1, rng=rng)[60].last,
        "apgd": apgd(model, x, y, threat, steps=60, rng=rng)[60].last,
        "mtpgd": mtpgd(model, x, y, threat, steps=60, alpha=0.1, rng=rng)[60].last,
    }
    for name, x_adv in runs.items():
        assert torch.allclose(margin(model(x_adv), y), highest, rtol=1e-5, atol=1e-5), name


def test_the_any_iterate_reading_reaches_the_optimum_too(rng: Callable[..., CounterRNG]) -> None:
    model, x, y, slope = problem(16, (1, 4, 4), 3)
    optimum = margin(model((x + float(EPS) * slope.sign()).clamp(0, 1)), y)
    best = pgd(model, x, y, Threat(EPS), steps=12, alpha=float(EPS) / 4, rng=rng(16))[12].best
    assert torch.allclose(margin(model(best), y), optimum)


def test_rfgsm_moves_only_where_its_two_signs_agree(rng: Callable[..., CounterRNG]) -> None:
    model, x, y, slope = problem(64, (1, 8, 8), 5, inset=0.1)
    x_adv = rfgsm(model, x, y, Threat(EPS), rng=rng(64))
    moved = (x_adv - x) / float(EPS)
    agree = moved.abs() > 0.5
    assert torch.allclose(moved[agree], slope.sign()[agree])
    assert torch.allclose(moved[~agree], torch.zeros(()).double(), atol=1e-12)
    assert float(agree.double().mean()) == pytest.approx(0.5, abs=0.03)


def test_rfgsm_is_weaker_than_fgsm_on_average(rng: Callable[..., CounterRNG]) -> None:
    model, x, y, _ = problem(64, (1, 8, 8), 5)
    half = margin(model(rfgsm(model, x, y, Threat(EPS), rng=rng(64))), y)
    full = margin(model(fgsm(model, x, y, Threat(EPS), rng=rng(64))), y)
    assert bool((half <= full).all())
    assert float((half < full).double().mean()) > 0.9
