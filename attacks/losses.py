"""Losses that an attacker maximises, one value per sample."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)_y: logits [N, K], y [N] -> [N].

    Not averaged over the batch, so that a sample's gradient does not depend on its neighbours.
    """
    return functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y: logits [N, K], y [N] -> [N]; positive exactly where another class wins."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - true


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin}
