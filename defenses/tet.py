"""Temporal efficient training: every time step has to be right."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defenses.base import Defense, Part, Step
from defenses.search import Range, searched


@dataclass(frozen=True)
class LossOverTime(Part):
    """(1 - lam) mean_t CE(o_t, y) + lam MSE(o, target) for per-step logits o, in place of the CE of their mean.

    Attributes:
        lam: weight of the pull.
        target: where to it pulls every logit.
    """

    name: ClassVar[str] = "loss-over-time"
    slot: ClassVar[str | None] = "loss"
    observes_steps: ClassVar[bool] = True
    lam: float = 1e-3
    target: float = 1.0

    def task_loss(self, step: Step) -> Tensor:
        assert step.over_time is not None
        steps = len(step.over_time)
        each = functional.cross_entropy(step.over_time.flatten(0, 1), step.y.repeat(steps))
        pull = functional.mse_loss(step.over_time, torch.full_like(step.over_time, self.target))
        return (1 - self.lam) * each + self.lam * pull


@searched(lam=Range(1e-4, 0.1, log=True))
def tet(lam: float = 1e-3, target: float = 1.0) -> Defense:
    """Temporal efficient training: the cross-entropy of every time step's logits, and a weak pull to one value.

    No defense by itself: the loss that several defenses' own codes train with (`dsd`, for one).

    Source: Deng et al., ICLR 2022 (TET), its lam of 1e-3 and the threshold as target.

    Args:
        lam: weight of the pull, in [0, 1].
        target: the value that logits are pulled to.

    Raises:
        ValueError: lam outside [0, 1].
    """
    if not 0 <= lam <= 1:
        raise ValueError(f"tet: lam must lie in [0, 1], got {lam}")
    return Defense("tet", (LossOverTime(lam, target),))
