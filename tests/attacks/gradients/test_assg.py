"""ASSG: the recursions, what moves them and what does not."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from slow import KEY, NEURONS, batch, membrane, network, potentials, slow_gradient
from torch import Tensor, nn

from attacks.gradients import InputGradient, estimating, input, input_gradient
from attacks.gradients.assg import _SHAPES, ASSG
from attacks.losses import cross_entropy
from models.neurons import LIF
from models.random import noise_stream

SHAPES: dict[str, tuple[float, Callable[[Tensor, Tensor], Tensor]]] = {
    "arctan": (stats.cauchy(scale=2 / math.pi).ppf(0.925), lambda a, x: a / 2 / (1 + (math.pi / 2 * a * x) ** 2)),
    "rectangular": (stats.uniform(-1, 2).ppf(0.925), lambda a, x: a / 2 * (x.abs() < 1 / a)),
    "triangular": (stats.triang(0.5, -1, 2).ppf(0.925), lambda a, x: a * (1 - a * x.abs()).clamp(min=0)),
    "sigmoid": (stats.logistic.ppf(0.925), lambda a, x: a * torch.sigmoid(a * x) * torch.sigmoid(-a * x)),
    "gaussian": (stats.norm.ppf(0.925), lambda a, x: a / math.sqrt(2 * math.pi) * torch.exp(-((a * x) ** 2) / 2)),
}
"""Width at tolerance 0.85 (the surrogates are densities: their mass on [-x, x] is 0.85 at the quantile of 0.925),
and the surrogate at sharpness alpha."""


class Recursion:
    """M and D of every layer, as the formulas say, moved by hand."""

    def __init__(self, shape: str = "arctan", beta: float = 0.9, r: float = 1.5) -> None:
        self.width, self.shape = SHAPES[shape]
        self.beta, self.r, self.moving = beta, r, True
        self.M: dict[int, Tensor] = {}
        self.D: dict[int, Tensor] = {}

    def __call__(self, layer: LIF, current: Tensor, noise: Tensor | None) -> Tensor:
        _, v = potentials(layer, current, noise)
        x = (v - layer.v_threshold).abs()
        if self.moving:
            self.M[layer.layer] = self.beta * self.M.get(layer.layer, torch.ones_like(x)) + (1 - self.beta) * x
            off = (x - self.M[layer.layer]).abs()
            self.D[layer.layer] = self.beta * self.D.get(layer.layer, torch.zeros_like(x)) + (1 - self.beta) * off
        alpha = self.width / (self.M[layer.layer] + self.r * self.D[layer.layer] + 1e-4)
        return membrane(layer, current, noise, lambda t, v: self.shape(alpha[t], v - layer.v_threshold))


def path(n: int = 4) -> tuple[list[Tensor], Tensor]:
    """Points that an attack might visit, and the labels."""
    x, y = batch(n)
    return [(x + 0.1 * step * torch.cos(40 * x)).clamp(0, 1) for step in range(4)], y


def assert_close(a: Tensor, b: Tensor) -> None:
    assert float(b.abs().max()) > 0
    assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_step_s_gradient_follows_from_all_points_so_far(kind: str, shape: str) -> None:
    model, (points, y) = network(kind), path()
    slow = Recursion(shape)
    with noise_stream(model, KEY, torch.arange(len(y))):
        expected = [slow_gradient(model, x, y, slow)[0] for x in points]
    with noise_stream(model, KEY, torch.arange(len(y))), estimating(model, ASSG(shape=shape)):
        got = [input_gradient(model, x, y, cross_entropy).grad for x in points]
    for fast, grad in zip(got, expected, strict=True):
        assert_close(fast, grad)


def test_beta_and_r_are_where_they_belong() -> None:
    model, (points, y) = network(), path()
    slow = Recursion(beta=0.6, r=4.0)
    with estimating(model, ASSG(beta=0.6, r=4.0)):
        for x in points:
            assert_close(input_gradient(model, x, y, cross_entropy).grad, slow_gradient(model, x, y, slow)[0])


@given(st.sampled_from(list(SHAPES)), st.floats(0.02, 0.99), st.floats(0.05, 30))
def test_the_width_is_where_the_surrogate_s_mass_is_the_tolerance(shape: str, tolerance: float, alpha: float) -> None:
    x = _SHAPES[shape].width(tolerance) / alpha
    surrogate = _SHAPES[shape].build(torch.tensor(alpha, dtype=torch.float64))
    mass, _ = integrate.quad(lambda v: float(surrogate.grad(torch.tensor(v, dtype=torch.float64))), -x, x, points=[0])
    assert mass == pytest.approx(tolerance, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_widths_are_the_densities_quantiles(shape: str) -> None:
    assert _SHAPES[shape].width(0.85) == pytest.approx(SHAPES[shape][0], rel=1e-9)


def gradients(model: nn.Module, points: list[Tensor], y: Tensor) -> list[Tensor]:
    return [input_gradient(model, x, y, cross_entropy).grad for x in points]


def test_it_has_a_memory_that_begins_anew_with_each_block() -> None:
    model, (points, y) = network(), path()
    same = [points[0]] * 3
    runs = []
    for _ in range(2):
        with estimating(model, ASSG()):
            runs.append(gradients(model, same, y))
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)
    for earlier, later in pairwise(runs[0]):
        assert not torch.allclose(earlier, later, rtol=1e-3)
    # A block inside that names no gradient goes on with this one.
    with estimating(model, ASSG()):
        parts = gradients(model, same[:1], y)
        with estimating(model, None, 1):
            parts += gradients(model, same[:1], y)
    assert torch.equal(parts[1], runs[0][1])


def test_scoring_does_not_move_it() -> None:
    model, (points, y) = network(), path()
    with estimating(model, ASSG()):
        expected = gradients(model, points, y)
    with estimating(model, ASSG()):
        for x, grad in zip(points, expected, strict=True):
            with torch.no_grad():
                model(x.flip(0))
                model(x[:2])
            assert torch.equal(input_gradient(model, x, y, cross_entropy).grad, grad)


def test_a_pass_with_a_gradient_that_the_attack_runs_itself_is_a_point_of_its_own() -> None:
    model, (points, y) = network(), path()
    with estimating(model, ASSG()):
        expected = gradients(model, points, y)
    got = []
    with estimating(model, ASSG()):
        for x in points:
            leaf = x.clone().requires_grad_()
            got += torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rows", [1, 8, 12, 512])
def test_further_draws_use_the_state_of_the_first(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input, "FOLDED_ROWS", rows)
    model, (points, y), draws = network("noisy"), path(), 5
    slow, expected = Recursion(), []
    with noise_stream(model, KEY, torch.arange(len(y))):
        for x in points:
            each = []
            for draw in range(draws):
                slow.moving = draw == 0
                each.append(slow_gradient(model, x, y, slow)[0])
            expected.append(torch.stack(each).mean(0))
    with noise_stream(model, KEY, torch.arange(len(y))), estimating(model, ASSG(), draws):
        got = gradients(model, points, y)
    for fast, grad in zip(got, expected, strict=True):
        assert_close(fast, grad)


class EndsOnce(nn.Module):
    """Runs out of memory once, at the last layer, on a batch above a limit."""

    def __init__(self, model: nn.Module, when: int) -> None:
        super().__init__()
        self.model, self.calls, self.when = model, 0, when

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        self.calls += 1
        if self.calls == self.when:
            raise torch.OutOfMemoryError("injected")
        return logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_pass_that_ran_out_of_memory_moves_it_once(when: int) -> None:
    model, (points, y) = network("noisy"), path()

    def run(target: nn.Module) -> list[InputGradient]:
        with noise_stream(model, KEY, torch.arange(len(y))), estimating(target, ASSG(), 4):
            return [input_gradient(target, x, y, cross_entropy) for x in points]

    for a, b in zip(run(EndsOnce(model, when)), run(model), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-13)
        assert torch.allclose(a.loss, b.loss, rtol=1e-12)


def test_an_attack_that_changes_its_batch_is_told() -> None:
    model, (points, y) = network(), path()
    with estimating(model, ASSG()):
        input_gradient(model, points[0], y, cross_entropy)
        with pytest.raises(ValueError, match=r"'assg' follows each image .* changes its batch"):
            input_gradient(model, points[0][:2], y[:2], cross_entropy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 1.0}, "tolerance 1.0"),
        ({"tolerance": 0.0}, "tolerance 0.0"),
        ({"beta": 1.0}, "beta 1.0"),
        ({"beta": float("nan")}, "beta nan"),
        ({"r": -1.0}, "r must be finite and not negative"),
        ({"shape": "step"}, "unknown shape 'step'; choose from arctan, rectangular"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ASSG(**arguments)  # type: ignore[arg-type]
