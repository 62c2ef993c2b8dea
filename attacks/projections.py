"""Balls around the clean images, intersected with the box, exact in float64.

In float32, x + eps may round to a number further than eps from x. Every point
these balls return satisfies |x_adv - x| <= eps when recomputed in float64.
"""

from typing import Protocol

import torch
from torch import Tensor

from attacks.base import per_sample
from attacks.grid import counts_of, of_counts
from attacks.threat import Threat
from models.random import CounterRNG

VERSIONS = {"linf": 1, "l2": 3, "linf-int": 1}
"""Part of every result's key, by norm; raise one when a change of its ball may change an outcome."""

_MAX_ROUNDS = 100


class Ball(Protocol):
    """The feasible set of one batch."""

    def project(self, x_adv: Tensor) -> Tensor:
        """A feasible point near `x_adv` [N, *]; feasible points come back unchanged."""
        ...

    def random_point(self, rng: CounterRNG) -> Tensor:
        """A random feasible point [N, *]: uniform in the ball, then clipped to the box."""
        ...

    def steepest(self, grad: Tensor) -> Tensor:
        """The direction of unit norm along which the linearised loss grows fastest, [N, *]."""
        ...


def ball(x: Tensor, threat: Threat) -> Ball:
    """The feasible set of `threat` around the inputs `x` [N, *]; with a `grid`, all between its whole counts too."""
    if threat.grid:
        return CountBall(x, threat)
    return LinfBall(x, threat) if threat.norm == "linf" else L2Ball(x, threat)


class LinfBall:
    """max |x_adv - x| <= eps within the box; `project` is the exact closest point."""

    def __init__(self, x: Tensor, threat: Threat) -> None:
        self.x = x
        self.eps = float(threat.eps)
        wide = x.double()
        below = (wide - self.eps).clamp_(min=threat.low)
        above = (wide + self.eps).clamp_(max=threat.high)
        self.lower = below.to(x.dtype)
        self.upper = above.to(x.dtype)
        # Rounding must go inwards, also that of x + eps itself; x stays feasible because it is representable.
        infinity = torch.tensor(torch.inf, dtype=x.dtype, device=x.device)
        low_outside = (self.lower.double() < below) | (wide - self.lower.double() > self.eps)
        high_outside = (self.upper.double() > above) | (self.upper.double() - wide > self.eps)
        self.lower = torch.where(low_outside, self.lower.nextafter(infinity), self.lower)
        self.upper = torch.where(high_outside, self.upper.nextafter(-infinity), self.upper)

    def project(self, x_adv: Tensor) -> Tensor:
        return x_adv.clamp(self.lower, self.upper)

    def random_point(self, rng: CounterRNG) -> Tensor:
        u = rng.uniform(self.x.shape[1:]).to(self.x.dtype)
        return self.project(self.x + self.eps * (2 * u - 1))

    def steepest(self, grad: Tensor) -> Tensor:
        return grad.sign()


class CountBall(LinfBall):
    """The smallest linf ball that holds every feasible frame of whole counts.

    Its ends are whole counts, so that the nearest whole counts of any of its points (`attacks.grid`) are feasible.
    """

    def __init__(self, x: Tensor, threat: Threat) -> None:
        self.x = x
        self.eps = float(threat.eps)
        counts = counts_of(x, threat.grid)
        least, most = (round(bound * threat.grid) for bound in (threat.low, threat.high))
        self.lower = of_counts((counts - threat.reach).clamp_(min=least), threat.grid, x.dtype)
        self.upper = of_counts((counts + threat.reach).clamp_(max=most), threat.grid, x.dtype)
        if not threat.reach:
            # Where nothing may change, nothing is rounded.
            self.lower = self.upper = x


class L2Ball:
    """||x_adv - x||_2 <= eps within the box; `project` is the closest point of their intersection.

    That point is clip(x + s (x_adv - x)) for the largest s <= 1 that lies in the ball (the
    optimality conditions of the projection). Other libraries scale and clip one after the other,
    which gives budget away, or bends the step, at the box's walls.
    """

    _LEAST_SHRINK = 2.0**-22

    def __init__(self, x: Tensor, threat: Threat) -> None:
        self.x = x
        self.eps = float(threat.eps)
        self.low, self.high = threat.low, threat.high

    def project(self, x_adv: Tensor) -> Tensor:
        boxed = x_adv.clamp(self.low, self.high)
        outside = (self._distance(boxed) > self.eps) | (boxed != x_adv).flatten(1).any(1)
        if not bool(outside.any()):
            return x_adv
        closest = self._closest(x_adv).to(self.x.dtype).clamp(self.low, self.high)
        return torch.where(per_sample(outside, self.x), self._inwards(closest), x_adv)

    def _closest(self, x_adv: Tensor) -> Tensor:
        """The exact projection, in float64."""
        x = self.x.double()
        step, low, high = (x_adv.double() - x), self.low - x, self.high - x
        s = torch.where(_norm(step) > self.eps, self.eps / _norm(step), 1.0)
        # With the clipped pixels held, the largest s has a closed form; more of s clips more pixels. Ends finitely.
        for _ in range(_MAX_ROUNDS):
            scaled = step * per_sample(s, step)
            free = (scaled > low) & (scaled < high)
            spent = _norm(torch.where(free, 0, scaled.clamp(low, high))).square()
            slope = _norm(torch.where(free, step, 0))
            larger = (self.eps**2 - spent).clamp(min=0).sqrt() / slope
            larger = torch.where(slope > 0, larger, 1.0).clamp(max=1)
            if not bool((larger > s * (1 + 1e-12)).any()):
                break
            s = torch.maximum(s, larger)
        return x + (step * per_sample(s, step)).clamp(low, high)

    def _inwards(self, x_adv: Tensor) -> Tensor:
        """Undo what rounding to the images' dtype put outside; towards x, so that the box still holds."""
        norm, shrink = self._distance(x_adv), self._LEAST_SHRINK
        # Twice as far each time: a pixel moves only once its step shrinks by half an ulp of the pixel, and where
        # a ball is smaller than the float grid around x, x itself is its only representable point.
        while bool((norm > self.eps).any()):
            scale = torch.where(norm > self.eps, self.eps / norm * (1 - shrink), 1)
            inside = (self.x + (x_adv.double() - self.x.double()) * per_sample(scale, self.x)).to(self.x.dtype)
            x_adv = torch.where(per_sample(norm > self.eps, self.x), inside, x_adv).clamp(self.low, self.high)
            norm, shrink = self._distance(x_adv), min(2 * shrink, 1.0)
        return x_adv

    def random_point(self, rng: CounterRNG) -> Tensor:
        direction = rng.normal(1, self.x.shape[1:], stream=1)[0]
        radius = rng.uniform((1,), stream=2).squeeze(1).double() ** (1 / self.x[0].numel())
        step = direction.double() * per_sample(self.eps * radius / _norm(direction), self.x)
        return self.project((self.x + step).to(self.x.dtype))

    def steepest(self, grad: Tensor) -> Tensor:
        norm = _norm(grad)
        scale = torch.where(norm > 0, 1 / norm, 0)
        return (grad.double() * per_sample(scale, grad)).to(grad.dtype)

    def _distance(self, x_adv: Tensor) -> Tensor:
        return _norm(x_adv.double() - self.x.double())


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x.double().flatten(1), dim=1)
    return norm
