"""The loss around images, and around weights, as numbers.

Source: TGO, Appendix F (Eq. 46-53). As printed its plane lies in the space of weights, spanned by the loss's
gradient and a random direction orthogonal to it; its text then explains the picture by perturbed inputs. Both are
here, as `weight_plane` and `input_plane`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attacks.base import per_sample
from attacks.losses import LOSSES
from attacks.projections import ball
from attacks.threat import Threat
from bench.evidence.jacobian import random_point
from bench.evidence.numbers import Numbers
from bench.evidence.probe import Probe, grads_of
from models.random import CounterRNG, derive_key

REACH = 2.0
POINTS = 9


@dataclass(frozen=True)
class Line(Numbers):
    """The loss along one direction.

    Attributes:
        direction: `gradient`: the threat's steepest direction at x (signs for linf). `random`: noise of the same
            size.
        steps: position, in units of eps; negative steps descend.
        loss: mean over images and draws at each step.
        accuracy: share of right predictions at each step.
    """

    direction: str
    steps: tuple[float, ...]
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class Plane(Numbers):
    """The loss on a grid: `loss[i][j]` at steps[i] along the gradient and steps[j] along the random direction.

    Attributes:
        space: `input` or `weights`.
        unit: Euclidean length of a step of 1.
        steps: in units of `unit`.
        loss: mean over images and draws.
    """

    space: str
    unit: float
    steps: tuple[float, ...]
    loss: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Landscape(Numbers):
    """The loss around a set of images.

    Attributes:
        loss: which one.
        lines: along the gradient and along noise.
        ascends: share of images (and draws) whose loss a gradient step of eps raises.
        noise_wins: share for which noise of size eps raises the loss more than the gradient step: high where the
            gradient does not point anywhere useful.
        planes: the grids that were asked for.
    """

    loss: str
    lines: tuple[Line, ...]
    ascends: float
    noise_wins: float
    planes: tuple[Plane, ...]


def landscape(
    model: nn.Module, x: Tensor, y: Tensor, probe: Probe, threat: Threat, *, loss: str = "ce", grid: int = 5
) -> Landscape:
    """The loss along the gradient, along noise, and on the planes they span.

    Cost: 1 backward and 2 POINTS + grid^2 forwards for each draw, and as much again without the lines for the
    weights' plane.

    Args:
        model: maps x to logits [N, K].
        x: inputs [N, *] in the box.
        y: labels [N].
        probe: gradient and noise.
        threat: norm, eps and box. Points outside the box are clipped to it, as an attacker's are.
        loss: a name in `attacks.losses.LOSSES`.
        grid: points along each side of a plane, odd so that the centre is one; 0 leaves the planes out.

    Raises:
        ValueError: a grid without a centre.
    """
    if grid and (grid < 3 or grid % 2 == 0):
        raise ValueError(f"the grid must have an odd number of points a side, at least 3, or 0 for none; got {grid}")
    along, climbed = input_line(model, x, y, probe, threat, loss, "gradient")
    across, wandered = input_line(model, x, y, probe, threat, loss, "random")
    planes: tuple[Plane, ...] = ()
    if grid:
        planes = (input_plane(model, x, y, probe, threat, loss, grid), weight_plane(model, x, y, probe, loss, grid))
    here, there = along.steps.index(0.0), along.steps.index(1.0)
    return Landscape(
        loss,
        (along, across),
        float((climbed[there] > climbed[here]).double().mean()),
        float((wandered[there] > climbed[there]).double().mean()),
        planes,
    )


def input_line(
    model: nn.Module, x: Tensor, y: Tensor, probe: Probe, threat: Threat, loss: str, direction: str
) -> tuple[Line, Tensor]:
    """The loss at x + s * eps * d for s in [-2, 2]; also by itself for every image and draw, [POINTS, N * draws].

    Args:
        others: as `landscape`.
        direction: `gradient` or `random`.
    """
    eps = float(threat.eps)
    losses: list[Tensor] = []
    right: list[Tensor] = []
    for part, draw in probe.parts():
        images, target = x[part], y[part]
        if direction == "gradient":
            with probe.realisation(model, part, draw):
                step = eps * ball(images, threat).steepest(_gradient(model, images, target, loss))
        else:
            rng = CounterRNG(derive_key(probe.key, "line"), probe.samples[part])
            step = random_point(torch.zeros_like(images), _unboxed(threat), rng)
        values = []
        for s in _steps(POINTS):
            with probe.realisation(model, part, draw), torch.no_grad():
                logits = model((images + s * step).clamp(threat.low, threat.high))
            values.append((LOSSES[loss](logits, target).double(), LOSSES["margin"](logits, target) < 0))
        losses.append(torch.stack([value for value, _ in values]))
        right.append(torch.stack([hit for _, hit in values]))
    table, hits = torch.cat(losses, 1), torch.cat(right, 1).double()
    return Line(direction, _steps(POINTS), tuple(table.mean(1).tolist()), tuple(hits.mean(1).tolist())), table


def input_plane(model: nn.Module, x: Tensor, y: Tensor, probe: Probe, threat: Threat, loss: str, grid: int) -> Plane:
    """The loss on each image's plane of its l2 gradient direction and a random direction orthogonal to it.

    A step of 1 is as long as an attack's step of eps can be: eps for l2, eps sqrt(D) for linf. An image whose
    gradient is zero does not move along it.

    Args:
        others: as `landscape`.
    """
    unit = float(threat.eps) * (x[0].numel() ** 0.5 if threat.norm == "linf" else 1.0)
    steps = _steps(grid)
    total = torch.zeros(grid, grid, dtype=torch.float64)
    for part, draw in probe.parts():
        images, target = x[part], y[part]
        with probe.realisation(model, part, draw):
            d1 = _normal(_gradient(model, images, target, loss))
        rng = CounterRNG(derive_key(probe.key, "plane"), probe.samples[part])
        d2 = rng.normal(1, images.shape[1:])[0].to(images.dtype)
        d2 = _normal(d2 - per_sample((d1 * d2).flatten(1).sum(1), d1) * d1)
        for i, a in enumerate(steps):
            for j, b in enumerate(steps):
                points = (images + unit * (a * d1 + b * d2)).clamp(threat.low, threat.high)
                with probe.realisation(model, part, draw), torch.no_grad():
                    total[i, j] += float(LOSSES[loss](model(points), target).double().sum())
    return Plane("input", unit, steps, _rows(total / (len(x) * probe.draws)))


def weight_plane(model: nn.Module, x: Tensor, y: Tensor, probe: Probe, loss: str, grid: int) -> Plane:
    """The mean loss on the plane of Eq. 46-52 around the weights, which stay as they are.

    A step of 1 has 1% of the length of the weights: the paper names no scale, and a length of 1 means another
    thing for each network.

    Args:
        others: as `landscape`.
    """
    weights = {name: value.detach() for name, value in model.named_parameters()}
    gradient = {name: torch.zeros_like(value) for name, value in weights.items()}
    for part, draw in probe.parts():
        with probe.realisation(model, part, draw), torch.enable_grad():
            live = {name: value.clone().requires_grad_() for name, value in weights.items()}
            value = LOSSES[loss](functional_call(model, live, (x[part],)), y[part]).sum()
            for name, grad in zip(live, grads_of(value, list(live.values())), strict=True):
                gradient[name] += grad
    generator = torch.Generator().manual_seed(derive_key(probe.key, "weights") % (1 << 63))
    noise = {
        name: torch.randn(value.shape, generator=generator).to(value.device, value.dtype)
        for name, value in weights.items()
    }
    d1 = _scaled(gradient, _length(gradient))
    along = sum(float((d1[name] * noise[name]).double().sum()) for name in weights)
    d2 = {name: noise[name] - along * d1[name] for name in weights}
    d2 = _scaled(d2, _length(d2))
    unit, steps = 0.01 * _length(weights), _steps(grid)
    total = torch.zeros(grid, grid, dtype=torch.float64)
    for i, a in enumerate(steps):
        for j, b in enumerate(steps):
            moved = {name: value + unit * (a * d1[name] + b * d2[name]) for name, value in weights.items()}
            for part, draw in probe.parts():
                with probe.realisation(model, part, draw), torch.no_grad():
                    logits = functional_call(model, moved, (x[part],))
                total[i, j] += float(LOSSES[loss](logits, y[part]).double().sum())
    return Plane("weights", unit, steps, _rows(total / (len(x) * probe.draws)))


def _gradient(model: nn.Module, x: Tensor, y: Tensor, loss: str) -> Tensor:
    inputs = x.detach().requires_grad_()
    with torch.enable_grad():
        return grads_of(LOSSES[loss](model(inputs), y).sum(), [inputs])[0]


def _steps(points: int) -> tuple[float, ...]:
    return tuple(torch.linspace(-REACH, REACH, points, dtype=torch.float64).tolist())


def _unboxed(threat: Threat) -> Threat:
    return Threat(threat.eps, threat.norm, -math.inf, math.inf)


def _normal(direction: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(direction.flatten(1).double(), dim=1)
    scale = torch.where(length > 0, 1 / length, 0)
    return (direction.double() * per_sample(scale, direction)).to(direction.dtype)


def _length(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in tensors.values()))


def _scaled(tensors: dict[str, Tensor], length: float) -> dict[str, Tensor]:
    return {name: value / length if length else value for name, value in tensors.items()}


def _rows(table: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in table.tolist())
