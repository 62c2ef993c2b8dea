"""Sparsity of the input gradient as a penalty."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Defense, Part, Step
from defenses.search import Range, searched


@dataclass(frozen=True)
class SparseGradient(Part):
    """lam * mean_n [(f(x + h d) - f(x)) / h]^2, a finite difference of ||grad_x f||_1 squared.

    f is the two-class softmax of the true class against the runner-up, sigmoid(z_y - z_j), and
    d = sign(grad_x f) is held constant. The runner-up j is the first pass's in both terms.
    """

    name: ClassVar[str] = "sparse-gradient"
    needs_input_gradient: ClassVar[bool] = True
    lam: float = 0.1
    h: float = 0.01

    def extra_passes(self) -> float:
        return 1.0

    def penalty(self, step: Step) -> Tensor:
        y = step.y[:, None]
        runner_up = step.logits.detach().scatter(1, y, -torch.inf).argmax(1, keepdim=True)

        def score(logits: Tensor) -> Tensor:
            return torch.sigmoid(logits.gather(1, y) - logits.gather(1, runner_up)).squeeze(1)

        f = score(step.logits)
        (grad,) = torch.autograd.grad(f.sum(), step.x, retain_graph=True)
        # Fresh noise would be divided by h and drown the difference.
        with step.same_noise():
            f_moved = score(step.model(step.x.detach() + self.h * grad.sign()))
        return self.lam * ((f_moved - f) / self.h).square().mean()


@searched(lam=Range(0.05, 10, log=True))
def sr(lam: float = 0.1, h: float = 0.01) -> Defense:
    """Sparse-gradient regularisation.

    Source: Liu et al., "Enhancing Adversarial Robustness in SNNs with Sparse Gradients", ICML 2024.

    Args:
        lam: weight of the penalty. The published value is not recoverable; 0.1 is the official code's default.
        h: finite-difference step in pixel units.
    """
    if not (lam >= 0 and h > 0):
        raise ValueError(f"sr: lam must not be negative and h must be positive, got {lam} and {h}")
    return Defense("sr", (SparseGradient(lam, h),))
