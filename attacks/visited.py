"""Which of the points that an attack visits it hands in."""

from typing import NamedTuple

import torch
from torch import Tensor

from attacks.base import per_sample
from attacks.gradients import InputGradient
from attacks.losses import margin


class Visited(NamedTuple):
    """A point of each image's path and what it achieves.

    Attributes:
        x: the points [N, *].
        wrong: where the logits do not single out the true class, bool [N]; a tie counts, as in scoring.
        loss: [N].
    """

    x: Tensor
    wrong: Tensor
    loss: Tensor


def visited(x: Tensor, at: InputGradient, y: Tensor) -> Visited:
    """The points `x` [N, *] where the gradient `at` was taken; y [N] are the true labels."""
    return Visited(x, margin(at.logits, y) >= 0, at.loss)


def stronger(kept: Visited, new: Visited) -> Visited:
    """Per image a misclassified point before any other, then the larger loss; ties keep `kept`.

    Without the first rule a loss that is not the margin would trade a fooled image for a confident one.
    """
    better = (new.wrong & ~kept.wrong) | ((new.wrong == kept.wrong) & (new.loss > kept.loss))
    return Visited(
        torch.where(per_sample(better, new.x), new.x, kept.x),
        torch.where(better, new.wrong, kept.wrong),
        torch.where(better, new.loss, kept.loss),
    )
