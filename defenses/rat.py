"""Regularised adversarial training: AT with the weights pulled towards orthogonality after each update."""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from defenses.at import at
from defenses.base import Defense, Part
from defenses.search import Choice, Range, searched
from models.wrn import ConvexCombination

_WIDE, _ROW_SHARE = 200, 0.3


@dataclass(frozen=True)
class Retraction(Part):
    """W <- (1 + beta) W - beta W W^T W on every convolution and linear layer, after every optimiser step.

    One gradient step on beta/4 ||W W^T - I||_F^2: a singular value s goes to
    s (1 + beta - beta s^2), towards 1. Wide linear layers (200 rows or more) act on a fresh
    30% of their rows. Convex combinations are projected onto the simplex. Weight decay is off.
    """

    name: ClassVar[str] = "retraction"
    slot: ClassVar[str | None] = "weights"
    weight_decay: ClassVar[float | None] = 0.0
    beta: float = 1e-3

    def after_update(self, model: nn.Module, key: int) -> None:
        generator = torch.Generator().manual_seed(key % (1 << 63))
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    weight = module.weight
                    rows = None
                    if isinstance(module, nn.Linear) and len(weight) >= _WIDE:
                        rows = torch.randperm(len(weight), generator=generator)[: int(_ROW_SHARE * len(weight))]
                        rows = rows.to(weight.device)
                    retract_(weight, self.beta, rows)
                elif isinstance(module, ConvexCombination):
                    module.coefficients.copy_(project_onto_simplex(module.coefficients))


def retract_(weight: Tensor, beta: float, rows: Tensor | None = None) -> None:
    """One Parseval retraction in place. weight: [M, *], read as a matrix of M rows; rows: which of them, or all."""
    matrix = weight.flatten(1)
    part = matrix if rows is None else matrix[rows]
    part = (1 + beta) * part - beta * (part @ part.T) @ part
    matrix = matrix.clone()
    matrix[slice(None) if rows is None else rows] = part
    weight.copy_(matrix.view(weight.shape))


def project_onto_simplex(c: Tensor) -> Tensor:
    """The closest point of {c >= 0, sum c = 1} to c [n] (Duchi et al., ICML 2008)."""
    ordered, _ = c.sort(descending=True)
    excess = ordered.cumsum(0) - 1
    count = torch.arange(1, len(c) + 1, device=c.device, dtype=c.dtype)
    k = int((ordered * count > excess).sum())
    return (c - excess[k - 1] / k).clamp(min=0)


@searched(beta=Range(1e-4, 1e-2, log=True), eps=Choice(("1/255", "2/255", "4/255", "8/255")))
def rat(beta: float = 1e-3, eps: Fraction | None = None, steps: int = 2) -> Defense:
    """AT plus weight orthogonalisation.

    Source: SNN-RAT, Ding et al., NeurIPS 2022, as coded (a projection, not a loss term).

    Args:
        beta: strength of the retraction. The paper does not state it and the codes
            disagree (5e-4 to 4e-3); 1e-3 by default.
        eps, steps: as `at`.
    """
    if not beta > 0:
        raise ValueError(f"rat: beta must be positive, got {beta}")
    return Defense("rat", (*at(eps, steps).parts, Retraction(beta)), strategy=True)
