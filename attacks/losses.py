"""Losses that an attacker maximises, one value per sample."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]

_TIE = 1e-4
_ROUNDINGS = 16


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


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The margin in units of the gap between the first and the third logit: logits [N, K], y [N] -> [N].

    Difference of logits ratio (Croce and Hein, arXiv 2003.01690, Eq. 6): invariant to shift and scale of the logits.
    Spike counts tie: where the first three logits are equal the ratio is undefined (the official code gives
    0 or 1e12, ART's NaN). Here a gap of less than 1e-4 of the logits' range, or of their rounding error, counts as
    a tie, and the loss there is the plain margin, with its gradient: invariant to shift, not to scale.

    Raises:
        ValueError: fewer than 3 classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"the dlr loss needs at least 3 classes, not {logits.shape[1]}; use loss=margin")
    top = logits.topk(3, dim=1).values
    gap = top[:, 0] - top[:, 2]
    values = logits.detach()
    rounding = _ROUNDINGS * torch.finfo(values.dtype).eps * values.abs().amax(1)
    tied = gap <= torch.maximum(_TIE * (values.amax(1) - values.amin(1)), rounding)
    return margin(logits, y) / torch.where(tied, 1, gap)


def towards(logits: Tensor, pairs: Tensor) -> Tensor:
    """z_target - z_true: logits [N, K], pairs [N, 2] of (true, target) -> [N]."""
    true, target = logits.gather(1, pairs).unbind(1)
    return target - true


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}
