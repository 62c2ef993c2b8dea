"""Candidates that are whole counts: what an attacker may really show a network that counts events."""

from typing import Any

import torch
from torch import Tensor, nn


class OnGrid(nn.Module):
    """A network that sees its inputs rounded to whole counts, and whose gradient passes the rounding as it is.

    An attack that moves freely between the counts meets the network where its candidates will be scored: what it
    compares and keeps is what it hands in. Rounding instead each step to whole counts would stop every attack whose
    steps are shorter than half a count.

    Args:
        model: maps [N, *] to logits [N, K].
        grid: how many counts make 1.0.
    """

    def __init__(self, model: nn.Module, grid: int) -> None:
        super().__init__()
        self.model, self.grid = model, grid

    def forward(self, x: Tensor) -> Tensor:
        return self.model(_Rounded.apply(x, self.grid))  # type: ignore[no-any-return]


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: int) -> Tensor:
        return of_counts(counts_of(x, grid), grid, x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def counts_of(x: Tensor, grid: int) -> Tensor:
    """The nearest whole count of each entry of x [N, *], float64; where x is NaN or infinite, that."""
    return (x.double() * grid).round_()


def of_counts(counts: Tensor, grid: int, dtype: torch.dtype) -> Tensor:
    """Whole counts [N, *] as a network sees them: divided as a dataset divides its own, bit by bit."""
    # By a tensor: accelerators multiply by a plain number's reciprocal, which rounds otherwise.
    return counts.to(dtype).div(torch.tensor(grid, dtype=dtype, device=counts.device))


def to_counts(x: Tensor, x_adv: Tensor, grid: int) -> Tensor:
    """The candidate of whole counts nearest to x_adv [N, *]; entries whose count is that of x [N, *] are x's own."""
    counts = counts_of(x_adv, grid)
    rounded = of_counts(counts, grid, x_adv.dtype)
    return torch.where(counts == counts_of(x, grid), x, rounded)
