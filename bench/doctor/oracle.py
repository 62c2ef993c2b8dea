"""A network on which the worst point of the ball is known in closed form, and images just inside and outside reach."""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from attacks.losses import margin
from attacks.threat import Norm, Threat
from models.neurons import LIF

SHAPE, CLASSES = (3, 8, 8), 4
BUDGETS: dict[Norm, Fraction] = {"linf": Fraction(8, 255), "l2": Fraction(1, 4)}
SLACK = 0.02
_UNLIKELY = -30.0


class Oracle(nn.Module):
    """Linear logits of two opposite classes, two classes that never win, and a spiking layer without influence.

    The two slopes are collinear, so that cross-entropy, margin and DLR all point to the same corner. The spiking
    layer and its normalisation are there for what an attack may do to them, multiplied by 0.
    """

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(SHAPE[0])
        self.spiking = LIF()
        self.readout = nn.Linear(len(slope), CLASSES)
        with torch.no_grad():
            self.readout.weight.zero_()
            self.readout.weight[0], self.readout.weight[1] = slope, -slope
            self.readout.bias.copy_(torch.stack([-slope.sum() / 2, slope.sum() / 2, *slope.new_full((2,), _UNLIKELY)]))

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, 8, 8] -> logits [N, 4]."""
        silent = self.spiking(self.norm(x).expand(2, *x.shape)).mean((0, 2, 3, 4))
        logits: Tensor = self.readout(x.flatten(1)) + 0 * silent[:, None]
        return logits


@dataclass(frozen=True)
class Problem:
    """Images and what an attack can do to them.

    Attributes:
        x: [N, 3, 8, 8]. A few pixels of a linf problem lie on the walls of the box, or next to them.
        y: labels [N]; every image is classified as its label.
        threat: norm and eps.
        highest: the largest margin of each image's ball, [N]: above 0 by `SLACK` of the way for the even images,
            below by as much for the odd ones.
        slope: of class 0's logit in the pixels, [192].
    """

    x: Tensor
    y: Tensor
    threat: Threat
    highest: Tensor
    slope: Tensor

    def model(self) -> Oracle:
        """A fresh network, set up oddly: train mode with a part in eval mode, a frozen weight, a gradient."""
        with torch.random.fork_rng(devices=[]):
            model = Oracle(self.slope.cpu())
        model = model.to(self.x.device, self.x.dtype).train()
        model.spiking.eval()
        model.readout.bias.requires_grad_(False)
        model.readout.weight.grad = torch.ones_like(model.readout.weight)
        return model

    @torch.no_grad()
    def margins(self, x: Tensor) -> Tensor:
        """The margin of images [N, 3, 8, 8] in float64, [N]."""
        logits: Tensor = self.model().eval().double()(x.double())
        return margin(logits, self.y)

    def rows(self, index: Tensor) -> "Problem":
        """The problem of some of the images."""
        return Problem(self.x[index], self.y[index], self.threat, self.highest[index], self.slope)


def problem(
    norm: Norm, device: torch.device, dtype: torch.dtype = torch.float64, n: int = 8, only_breakable: bool = False
) -> Problem:
    """A problem of `n` images; with `only_breakable` every one can be broken, so that an attack may stop early."""
    threat = Threat(BUDGETS[norm], norm)
    eps = float(threat.eps)
    generator = torch.Generator().manual_seed(17)
    size = SHAPE[0] * SHAPE[1] * SHAPE[2]
    signs = torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1
    # Magnitudes away from 0: whichever way a gradient rounds, its sign is known.
    slope = signs * (0.05 + 0.1 * torch.rand(size, generator=generator, dtype=torch.float64))
    x = 0.3 + 0.4 * torch.rand(n, size, generator=generator, dtype=torch.float64)
    y = torch.arange(n) % 2
    y = y if not only_breakable else y.flip(0)
    free = torch.ones(size, dtype=torch.bool)
    if norm == "linf":
        walls = torch.tensor([0.0, 1.0, 1e-9, 1 - 2**-24, 1 / 255, 254 / 255, 8 / 255, 247 / 255])
        free[: len(walls)] = False
        x[:, ~free] = walls.double()
    x = x.to(dtype).double()
    uphill = torch.where(y[:, None] == 0, -2.0, 2.0) * slope
    if norm == "linf":
        best = (x + eps * uphill.sign()).clamp(0, 1)
    else:
        best = x + eps * uphill / uphill.norm(dim=1, keepdim=True)
    gain = (uphill * (best - x)).sum(1)
    breakable = torch.ones(n, dtype=torch.bool) if only_breakable else torch.arange(n) % 2 == 0
    wanted = -gain * torch.where(breakable, 1 - SLACK, 1 + SLACK)
    missing = wanted - (uphill * (x - 0.5)).sum(1)
    shift = torch.where(free, uphill, 0)
    x = (x + shift * (missing / shift.square().sum(1))[:, None]).to(dtype)
    highest = (uphill * (x.double() - 0.5)).sum(1) + gain
    return Problem(x.view(n, *SHAPE).to(device), y.to(device), threat, highest.to(device), slope.to(device))
