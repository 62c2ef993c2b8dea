"""Dominant singular deflation: weights are updated without their gradient's strongest direction."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from defenses.base import Defense, Part
from defenses.search import searched
from models.neurons import LIF
from models.random import CounterRNG

_BLOCK, _ROUNDS = 8, 8


@dataclass(frozen=True)
class Deflation(Part):
    """G <- G - s1 u1 v1^T before every update, for each weight's gradient G read as a matrix [out, rest].

    A neuron's own constants are no weights, and a matrix of one row or column is left alone: it is its own dominant
    component, and would never change.
    """

    name: ClassVar[str] = "deflation"

    def extra_passes(self) -> float:
        return 0.1

    def before_update(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, LIF):
                continue
            for weight in module.parameters(recurse=False):
                if weight.grad is not None and weight.dim() >= 2:
                    matrix = weight.grad.flatten(1)
                    if min(matrix.shape) > 1:
                        weight.grad.copy_(deflated(matrix).reshape(weight.shape))


def deflated(matrix: Tensor) -> Tensor:
    """A matrix [M, N] without its dominant singular component, in its dtype.

    Up to 72 rows or columns by an eigendecomposition; of larger ones the largest Ritz vector of a block Krylov space of
    72 dimensions from a fixed start (Musco and Musco, NeurIPS 2015), whose singular value falls short of the largest by
    under 1% even for matrices of noise, where all of them lie close together. Whatever the vector, no singular value
    grows. The same input gives the same bits. What is not finite is given back as it is: it has no such component, and
    whoever trains finds the loss out.
    """
    if not bool(matrix.isfinite().all()):
        return matrix.clone()
    if matrix.shape[0] > matrix.shape[1]:
        return deflated(matrix.T).T
    with torch.no_grad(), torch.autocast(matrix.device.type, enabled=False):
        basis = _krylov(matrix) if len(matrix) > _BLOCK * (_ROUNDS + 1) else None
        # Squares of singular values need twice the digits.
        rows = (matrix if basis is None else basis.T @ matrix).double()
        top = torch.linalg.eigh(rows @ rows.T).eigenvectors[:, -1]
        u = top.to(matrix.dtype) if basis is None else basis @ top.to(matrix.dtype)
        rest: Tensor = torch.addr(matrix, u, u @ matrix, alpha=-1)
    return rest


def _krylov(matrix: Tensor) -> Tensor:
    """An orthonormal basis [M, 72] of a space that nearly holds the dominant left singular vectors of [M, N]."""
    rows = torch.arange(len(matrix), device=matrix.device)
    block = CounterRNG(0, rows).uniform((_BLOCK,)).to(matrix.dtype) - 0.5
    # Squares of small or large gradients leave the range of float32; a power of two changes no other bit.
    exponent = torch.frexp(matrix.abs().amax()).exponent.clamp(-120, 120)
    matrix = torch.ldexp(matrix, -exponent)
    blocks = []
    for _ in range(_ROUNDS + 1):
        block = torch.linalg.qr(block).Q
        blocks.append(block)
        block = matrix @ (matrix.T @ block)
    basis: Tensor = torch.linalg.qr(torch.cat(blocks, 1)).Q
    return basis


@searched()
def dsd() -> Defense:
    """Dominant singular deflation: each weight's gradient loses its largest singular component before each update.

    Source: DSD (ICLR 2026) and its code, whose networks also train with temporal efficient training, here `tet`, and
    which deflates neurons' parameters of two dimensions as well. Alone it changes nothing but the optimiser's path.
    """
    return Defense("dsd", (Deflation(),))
