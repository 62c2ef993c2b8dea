"""SA-PGD against a slow reference, and its mended traps."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks import Threat
from attacks.apgd import random_edge_point
from attacks.gradients import estimating
from attacks.losses import cross_entropy, margin
from attacks.pgd import pgd
from attacks.sapgd import sapgd
from models.neurons import NeuronSpec
from models.random import CounterRNG, noise_stream

THREAT = Threat(Fraction(1, 16))
EPS = 1 / 16
RNG = Callable[..., CounterRNG]


class Uneven(nn.Module):
    """Smooth, with slopes that differ between pixels by factors of a thousand; its visited points are kept."""

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8), classes: int = 5, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        pixels = torch.Size(shape).numel()
        size = 10 ** (1.5 * (2 * torch.rand(pixels, 1, generator=generator, dtype=torch.float64) - 1))
        self.inner = size * torch.randn(pixels, 48, generator=generator, dtype=torch.float64) / 4
        self.outer = torch.randn(48, classes, generator=generator, dtype=torch.float64)
        self.scale = scale
        self.visited: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.visited.append(x.detach().clone())
        z = ((x.double().flatten(1) - 0.5) @ self.inner).tanh() @ self.outer
        return (self.scale * z).to(x.dtype)


def slow_reference(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, steps: int) -> list[Tensor]:
    """The points visited, image by image, written from the formulas."""
    path = []
    for image, label, point in zip(x.split(1), y.split(1), start.split(1), strict=True):
        eta, interval, since, points = EPS, max(int(0.22 * steps), 1), 0, [point]
        m = v = torch.zeros_like(image)
        for _ in range(steps):
            at = points[-1].clone().requires_grad_()
            (g,) = torch.autograd.grad(cross_entropy(model(at), label).sum(), at)
            m = 0.5 * m + g / g.abs().mean()
            v = 0.8 * v + g**2 / (g**2).mean()
            step = (eta * m / (v.sqrt() + 1e-12)).clamp(-eta, eta)
            inside = torch.min(torch.max(points[-1] + step, image - EPS), image + EPS).clamp(0, 1)
            points.append(inside)
            since += 1
            if since == interval:
                eta, since = eta / 2, 0
                interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        path.append(torch.cat(points))
    return [torch.stack(points) for points in zip(*path, strict=True)]


@pytest.mark.parametrize("steps", [1, 7, 20, 100])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3, 4, 4)], ids=["image", "frames"])
def test_it_visits_the_points_of_the_formulas(shape: tuple[int, ...], steps: int, rng: RNG) -> None:
    """For inputs with further axes too: the official means leave the last axis of event frames out."""
    model, x, y = Uneven(shape), images(6, *shape, dtype=torch.float64), labels(6, 5)
    product = sapgd(model, x, y, THREAT, steps=steps, rng=rng(6))[steps]
    mine = list(model.visited)
    reference = slow_reference(Uneven(shape), x, y, random_edge_point(x, THREAT, rng(6)), steps)
    assert len(mine) == steps + 1
    for point, expected in zip(mine, reference, strict=True):
        assert torch.allclose(point, expected, rtol=0, atol=1e-9)
    with torch.no_grad():
        losses = torch.stack([cross_entropy(model(point), y) for point in mine])
        wrong = torch.stack([margin(model(point), y) >= 0 for point in mine])
        chosen = cross_entropy(model(product.last), y)
    assert product.last is product.best
    expected = torch.where(wrong.any(0), losses.where(wrong, -torch.inf).amax(0), losses.amax(0))
    assert torch.allclose(chosen, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-25])
def test_tiny_gradients_lead_where_large_ones_do(scale: float, rng: RNG) -> None:
    """Their squares are 0 in float32; the official code divides by them."""
    x, y = images(6), labels(6, 5)
    large, tiny = Uneven(), Uneven(scale=scale)
    sapgd(large, x, y, THREAT, steps=10, rng=rng(6), loss="margin")
    sapgd(tiny, x, y, THREAT, steps=10, rng=rng(6), loss="margin")
    for a, b in zip(large.visited, tiny.visited, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-4)


class HalfDead(nn.Module):
    """No gradient where an image's first pixel is dark; its visited points are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.visited: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.visited.append(x.detach().clone())
        alive = (x.flatten(1)[:, :1] > 0.5).to(x)
        return alive * torch.stack([x.flatten(1).sum(1), -x.flatten(1).sum(1)], 1)


def test_a_zero_gradient_leaves_the_image_where_it_is(rng: RNG) -> None:
    x, y = 0.25 + 0.5 * images(8), torch.zeros(8, dtype=torch.long)
    x[:4, 0, 0, 0], x[4:, 0, 0, 0] = 0.3, 0.7
    model = HalfDead()
    product = sapgd(model, x, y, THREAT, steps=20, rng=rng(8), loss="margin")[20].last
    start = random_edge_point(x, THREAT, rng(8))
    assert all(torch.equal(point[:4], start[:4]) for point in (product, *model.visited))
    assert torch.allclose(product[4:, :, 1:], x[4:, :, 1:] - EPS, atol=1e-6)


def test_it_beats_pgd_where_slopes_are_uneven_and_curved(rng: RNG) -> None:
    model = Uneven()
    x = images(64, dtype=torch.float64)
    y = model(x).argmax(1)
    walked = pgd(model, x, y, THREAT, steps=21, alpha=EPS * 51 / 160, rng=rng(64))[21].last
    mine = sapgd(model, x, y, THREAT, steps=20, rng=rng(64))[20].last
    with torch.no_grad():
        assert cross_entropy(model(mine), y).mean() > cross_entropy(model(walked), y).mean()


def test_l2_and_no_steps_are_refused(rng: RNG) -> None:
    with pytest.raises(ValueError, match="linf norm only"):
        sapgd(spiking_net(), images(2), labels(2), Threat(Fraction(1), "l2"), steps=3, rng=rng(2))
    with pytest.raises(ValueError, match="at least 1"):
        sapgd(spiking_net(), images(2), labels(2), THREAT, steps=0, rng=rng(2))


def test_averaging_over_noise_makes_the_proposal_depend_less_on_it(rng: RNG) -> None:
    model = spiking_net(NeuronSpec("nlif", params=(("noise_var", 0.4),)))
    x, y = images(8), labels(8)

    def run(key: int, draws: int) -> Tensor:
        with noise_stream(model, key, torch.arange(8)), estimating(model, draws=draws):
            return sapgd(model, x, y, THREAT, steps=10, rng=rng(8))[10].last

    assert torch.equal(run(0, 4), run(0, 4))
    spread = {draws: torch.stack([run(key, draws) for key in range(6)]).var(0).mean() for draws in (1, 16)}
    assert spread[16] < 0.75 * spread[1]
