"""Every point a ball returns is feasible in float64, and is the right one."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import images
from torch import Tensor

from attacks import Threat, ball
from models.random import CounterRNG

BUDGETS = st.one_of(
    st.integers(0, 255).map(lambda k: Fraction(k, 255)),
    st.floats(0, 1).map(Fraction),
    st.sampled_from([Fraction(0), Fraction(1, 10**9), Fraction(1, 3), Fraction(1)]),
)
NORMS = st.sampled_from(["linf", "l2"])
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Threat]:
    """(x in the box, any point near it or far away, threat)."""
    shape = draw(SHAPES)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    width = 32 if dtype == np.float32 else 64
    x = draw(arrays(dtype, shape, elements=st.floats(0, 1, width=width)))
    step = draw(arrays(dtype, shape, elements=st.floats(-2, 2, width=width)))
    scale = draw(st.sampled_from([1.0, 1e-3, 1e-8]))
    return (
        torch.from_numpy(x),
        torch.from_numpy(x + (scale * step).astype(dtype)),
        Threat(draw(BUDGETS), draw(NORMS)),
    )


def distance(x: Tensor, x_adv: Tensor, norm: str) -> Tensor:
    delta = (x_adv.double() - x.double()).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)


def assert_feasible(x: Tensor, x_adv: Tensor, threat: Threat) -> None:
    assert x_adv.dtype == x.dtype
    assert x_adv.shape == x.shape
    assert float(distance(x, x_adv, threat.norm).max()) <= float(threat.eps)
    assert float(x_adv.min()) >= threat.low
    assert float(x_adv.max()) <= threat.high


@given(problems())
def test_a_projection_is_feasible_and_projecting_again_changes_nothing(problem: tuple[Tensor, Tensor, Threat]) -> None:
    x, x_adv, threat = problem
    region = ball(x, threat)
    projected = region.project(x_adv)
    assert_feasible(x, projected, threat)
    assert torch.equal(region.project(projected), projected)


def test_a_float64_pixel_whose_sum_with_eps_rounds_up_stays_inside() -> None:
    """Found by the property above: 0.25 + 1/85 lies an ulp further than 1/85 from 0.25."""
    x = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    threat = Threat(Fraction(1, 85))
    for far in (x + 1, x - 1):
        assert_feasible(x, ball(x, threat).project(far), threat)


@given(problems())
def test_feasible_points_stay_where_they_are(problem: tuple[Tensor, Tensor, Threat]) -> None:
    x, x_adv, threat = problem
    x_adv = x_adv.clamp(0, 1)
    kept = distance(x, x_adv, threat.norm) <= float(threat.eps)
    assert torch.equal(ball(x, threat).project(x_adv)[kept], x_adv[kept])
    assert torch.equal(ball(x, threat).project(x), x)


@given(problems())
def test_a_projection_loses_no_more_than_rounding(problem: tuple[Tensor, Tensor, Threat]) -> None:
    x, x_adv, threat = problem
    eps, tolerance = float(threat.eps), 4 * torch.finfo(x.dtype).eps
    wide, target = x.double(), x_adv.double()
    projected = ball(x, threat).project(x_adv).double()
    if threat.norm == "linf":
        exact = target.clamp((wide - eps).clamp(min=0), (wide + eps).clamp(max=1))
        assert torch.allclose(projected, exact, rtol=0, atol=tolerance)
        return
    # The closest point is clip(x + s (target - x)) for the largest s that stays in the ball: find it by bisection.
    low, high = torch.zeros(len(x), dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)
    for _ in range(80):
        s = (low + high) / 2
        inside = distance(wide, (wide + s.view(-1, 1, 1, 1) * (target - wide)).clamp(0, 1), "l2") <= eps
        low, high = torch.where(inside, s, low), torch.where(inside, high, s)
    exact = (wide + low.view(-1, 1, 1, 1) * (target - wide)).clamp(0, 1)
    # Where the grid around x is coarser than eps, the only feasible point may be x itself.
    reach = tolerance * x[0].numel() + (2 * eps if eps < 1e-6 else 0) + 2e-6 * eps
    assert torch.allclose(projected, exact, rtol=0, atol=reach)


@given(problems(), st.integers(0, 1000))
def test_no_feasible_point_is_closer_than_the_projection(problem: tuple[Tensor, Tensor, Threat], seed: int) -> None:
    x, x_adv, threat = problem
    region = ball(x.double(), threat)
    projected = region.project(x_adv.double())
    other = region.random_point(CounterRNG(seed, torch.arange(len(x))))
    # The variational inequality that says projection onto a convex set.
    gain = ((x_adv.double() - projected) * (other - projected)).flatten(1).sum(1)
    assert float(gain.max()) <= 1e-6 * (1 + float(x_adv.abs().max()))


@given(problems(), st.integers(0, 2**63 - 1))
def test_random_points_are_feasible(problem: tuple[Tensor, Tensor, Threat], key: int) -> None:
    x, _, threat = problem
    assert_feasible(x, ball(x, threat).random_point(CounterRNG(key, torch.arange(len(x)))), threat)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_leaves_only_x(norm: str, rng: Callable[..., CounterRNG]) -> None:
    x = torch.rand(5, 3, 4, 4)
    region = ball(x, Threat(Fraction(0), norm))  # type: ignore[arg-type]
    assert torch.equal(region.random_point(rng(5)), x)
    assert torch.equal(region.project(torch.rand_like(x)), x)


def test_a_random_start_is_uniform_in_each_pixel(rng: Callable[..., CounterRNG]) -> None:
    x = torch.full((200, 1, 16, 16), 0.5)
    u = (ball(x, Threat(Fraction(1, 10))).random_point(rng(200)) - x).flatten() / 0.1
    histogram = torch.histc(u, 20, -1, 1) / len(u)
    assert float((histogram - 0.05).abs().max()) < 0.004
    assert float(u.abs().max()) > 0.999


def test_a_random_start_is_uniform_in_the_l2_ball(rng: Callable[..., CounterRNG]) -> None:
    x = torch.full((4000, 2, 1, 1), 0.5)
    radius = distance(x, ball(x, Threat(Fraction(1, 10), "l2")).random_point(rng(4000)), "l2") / 0.1
    # In the plane the share within radius r is r squared.
    for r in (0.25, 0.5, 0.75):
        assert float((radius <= r).double().mean()) == pytest.approx(r * r, abs=0.03)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_direction_of_unit_norm_gains_more_than_the_steepest(norm: str) -> None:
    torch.manual_seed(0)
    grad = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    steepest = ball(grad, Threat(Fraction(1), norm)).steepest(grad)  # type: ignore[arg-type]
    gain = (grad * steepest).flatten(1).sum(1)
    dual = grad.flatten(1).abs().sum(1) if norm == "linf" else grad.flatten(1).norm(dim=1)
    assert torch.allclose(gain, dual)
    assert torch.allclose(distance(torch.zeros_like(grad), steepest, norm), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_vanished_gradient_has_no_direction(norm: str) -> None:
    zero = torch.zeros(2, 1, 3, 3)
    assert torch.equal(ball(zero, Threat(Fraction(1), norm)).steepest(zero), zero)  # type: ignore[arg-type]
    tiny = torch.full((2, 1, 3, 3), 1e-42)
    assert float(ball(tiny, Threat(Fraction(1), norm)).steepest(tiny).flatten(1).norm(dim=1).min()) > 0.99  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize("eps", ["1/100", "1/10", "1/2"])
@pytest.mark.parametrize("over", [1.0, 1 + 1e-6, 1.5])
def test_the_l2_projection_spends_the_budget_although_rounding_is_coarse(
    shape: tuple[int, ...], eps: str, over: float
) -> None:
    threat = Threat(Fraction(eps), "l2")
    x = 0.3 + 0.4 * images(40, *shape)
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    length = over * float(threat.eps) / step.flatten(1).norm(dim=1)
    delta = ball(x, threat).project(x + step * length.view(-1, 1, 1, 1)).double() - x.double()
    spent = delta.flatten(1).norm(dim=1) / float(threat.eps)
    assert (spent <= 1).all() and (spent > 0.999).all()
