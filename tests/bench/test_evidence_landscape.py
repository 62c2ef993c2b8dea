"""The loss around images and weights, against what can be computed by hand."""

import math
from fractions import Fraction

import pytest
import torch
from support import images, labels, spiking_net
from torch import nn
from torch.nn import functional

from attacks.threat import Threat
from bench.evidence.landscape import POINTS, input_line, input_plane, landscape, weight_plane
from bench.evidence.probe import Probe
from models.neurons import NeuronSpec


def probe(n: int, **options: object) -> Probe:
    return Probe(torch.arange(n), **options)  # type: ignore[arg-type]


def linear_model() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(4, 64, generator=generator))
        model[1].bias.zero_()
    return model


def test_along_the_gradient_the_margin_of_two_classes_rises_by_the_l1_norm() -> None:
    model = linear_model()
    with torch.no_grad():
        model[1].weight[2:] = 0
        model[1].bias[2:] = -1000
    x, y = torch.full((5, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)
    line, table = input_line(model, x, y, probe(5), Threat(Fraction(1, 10)), "margin", "gradient")
    weight = model[1].weight.detach()
    slope = float((weight[1] - weight[0]).abs().sum())
    start = float(((weight[1] - weight[0]) * 0.5).sum())
    assert table.shape == (POINTS, 5)
    assert line.loss == pytest.approx([start + s * 0.1 * slope for s in line.steps])
    assert line.accuracy == tuple(float(loss < 0) for loss in line.loss)
    found = landscape(model, x, y, probe(5), Threat(Fraction(1, 10)), loss="margin", grid=0)
    assert (found.ascends, found.noise_wins, found.planes) == (1, 0, ())


def test_the_input_plane_of_a_linear_model_is_flat_across_and_steep_down() -> None:
    model = linear_model()
    with torch.no_grad():
        model[1].weight[2:] = 0
        model[1].bias[2:] = -1000
    x, y = torch.full((3, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    plane = input_plane(model, x, y, probe(3), Threat(Fraction(1, 100)), "margin", 3)
    weight = model[1].weight.detach()
    slope, unit = float((weight[1] - weight[0]).norm()), 0.01 * 8
    start = float(((weight[1] - weight[0]) * 0.5).sum())
    assert plane.unit == pytest.approx(unit)
    assert plane.steps == (-2.0, 0.0, 2.0)
    for step, row in zip(plane.steps, plane.loss, strict=True):
        assert row == pytest.approx([start + step * unit * slope] * 3)


def test_the_plane_of_weights_is_that_of_eq_50() -> None:
    model, x, y = linear_model(), images(6, dtype=torch.float64), labels(6)
    plane = weight_plane(model, x, y, probe(6, batch=4), "ce", 3)
    weight, bias = (p.detach().clone().requires_grad_() for p in (model[1].weight, model[1].bias))
    loss = functional.cross_entropy(functional.linear(x.flatten(1), weight, bias), y)
    grads = torch.autograd.grad(loss, (weight, bias))
    length = math.sqrt(sum(float(g.square().sum()) for g in grads))
    unit = 0.01 * math.sqrt(sum(float(p.detach().square().sum()) for p in (weight, bias)))
    assert plane.unit == pytest.approx(unit)
    for i, step in enumerate(plane.steps):
        moved = [p + unit * step * g / length for p, g in zip((weight, bias), grads, strict=True)]
        here = functional.cross_entropy(functional.linear(x.flatten(1), *moved), y)
        assert plane.loss[i][1] == pytest.approx(float(here.detach()))
    # To first order a direction orthogonal to the gradient does not change the loss.
    down = abs(plane.loss[2][1] - plane.loss[0][1])
    assert abs(plane.loss[1][2] - plane.loss[1][0]) < 0.05 * down


def test_the_centre_is_the_clean_loss_of_each_draw() -> None:
    model, x, y = spiking_net(NeuronSpec("nlif", params=(("noise_var", 0.4),))), images(6), labels(6)
    looked = probe(6, key=3, draws=2, batch=4)
    found = landscape(model, x, y, looked, Threat(Fraction(1, 10)), grid=3)
    total = 0.0
    for part, draw in looked.parts():
        with looked.realisation(model, part, draw), torch.no_grad():
            total += float(functional.cross_entropy(model(x[part]), y[part], reduction="sum"))
    for line in found.lines:
        assert line.loss[POINTS // 2] == pytest.approx(total / 12, rel=1e-6)
    for plane in found.planes:
        assert plane.loss[1][1] == pytest.approx(total / 12, rel=1e-6)
    assert [plane.space for plane in found.planes] == ["input", "weights"]


def test_where_the_gradient_is_zero_noise_is_the_better_attack() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = (x.flatten(1) - 0.5).square().sum(1)
            return torch.stack([-z, 0 * z], 1)

    x, y = torch.full((4, 1, 8, 8), 0.5), torch.zeros(4, dtype=torch.int64)
    found = landscape(Masked(), x, y, probe(4), Threat(Fraction(1, 10)), grid=0)
    assert (found.ascends, found.noise_wins) == (0, 1)


def test_lines_stay_in_the_box() -> None:
    class Watch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((float(x.detach().min()), float(x.detach().max())))
            return x.flatten(1)[:, :4]

    seen: list[tuple[float, float]] = []
    arguments = (Watch(), images(3), labels(3), probe(3), Threat(Fraction(1, 2)))
    landscape(*arguments, grid=0)
    input_plane(*arguments, "ce", 3)
    assert (min(low for low, _ in seen), max(high for _, high in seen)) == (0, 1)


@pytest.mark.parametrize("grid", [2, 4, 1, -3])
def test_a_grid_has_a_centre(grid: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        landscape(spiking_net(), images(1), labels(1), probe(1), Threat(Fraction(1, 10)), grid=grid)
