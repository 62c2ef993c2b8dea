"""The membrane-potential constraint, the first half of TGO."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from defenses.base import Defense, Part, Setting, Step
from defenses.search import Range, searched
from models.kernels import native
from models.lif import refuse_second_derivative
from models.neurons import spiking_layers

PENALTIES = ("linear", "quadratic")


@dataclass(frozen=True)
class MembraneConstraint(Part):
    """lam(e) * sum_l C_l with C_l = mean over batch, neurons and time of max(0, delta - |V - v_threshold|).

    V is the potential before noise and reset. lam(e) = lam_max/2 (1 - cos(pi e / e_max)) is constant
    within an epoch, 0 in the first and lam_max in the last.
    """

    name: ClassVar[str] = "membrane-constraint"
    observes_membrane: ClassVar[bool] = True
    lam_max: float | None = None
    delta: float = 0.5
    penalty_form: str = "linear"

    def settled(self, setting: Setting) -> "MembraneConstraint":
        if self.lam_max is not None:
            return self
        return replace(self, lam_max=0.6 if setting.model == "vgg11" else 0.4)

    def extra_passes(self) -> float:
        return 0.2

    def penalty(self, step: Step) -> Tensor:
        assert self.lam_max is not None
        layers = spiking_layers(step.model)
        closeness = [
            threshold_closeness(v, layers[name].v_threshold, self.delta, self.penalty_form)
            for name, v in step.membrane.items()
        ]
        return cosine_rise(self.lam_max, step.progress) * torch.stack(closeness).sum()


def threshold_closeness(v: Tensor, v_threshold: float, delta: float, form: str = "linear") -> Tensor:
    """How close a layer's potentials lie to the threshold: a scalar in [0, delta] (TGO, Eq. 12).

    Args:
        v: membrane potentials [T, N, *].
        v_threshold, delta: threshold and half-width of the penalised band.
        form: `linear` hinge (the equation) or `quadratic` (the sentence after it).
    """
    if form == "linear" and native.takes(v) and native.dense(v):
        return _Closeness.apply(v, v_threshold, delta)  # type: ignore[no-any-return]
    # Thousands of bfloat16 numbers do not add up in bfloat16.
    wide = v.to(torch.float32) if v.dtype == torch.bfloat16 else v
    hinge = (delta - (wide - v_threshold).abs()).clamp(min=0)
    return (hinge.square() if form == "quadratic" else hinge).mean()


class _Closeness(torch.autograd.Function):
    """The linear form in one pass over memory, and its gradient in one."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, v_threshold: float, delta: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.band = v_threshold, delta
        return torch.tensor(native.closeness(v, v_threshold, delta), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivative()
        (v,) = ctx.saved_tensors
        v_threshold, delta = ctx.band
        return native.closeness_grad(v, v_threshold, delta, float(grads[0] / v.numel())), None, None


def cosine_rise(lam_max: float, progress: float) -> float:
    """lam_max/2 (1 - cos(pi * progress)) (TGO, Eq. 14)."""
    return 0.5 * lam_max * (1 - math.cos(math.pi * progress))


@searched(lam_max=Range(0.05, 2, log=True), delta=Range(0.1, 1))
def mc(lam_max: float | None = None, delta: float = 0.5, penalty: str = "linear") -> Defense:
    """Push membrane potentials away from the threshold.

    Source: TGO, Eq. 12-14. The paper leaves delta open and its normalisation is
    ambiguous; a mean over batch, neurons and time, summed over layers, is the only
    reading in which its lam_max is comparable with the loss.

    Args:
        lam_max: final weight; None takes the paper's 0.6 for vgg11 and 0.4 otherwise.
        delta: half-width of the penalised band, in units of membrane potential.
        penalty: `linear` or `quadratic`.
    """
    if penalty not in PENALTIES:
        raise ValueError(f"mc: penalty must be one of {', '.join(PENALTIES)}, got '{penalty}'")
    if not delta > 0 or (lam_max is not None and not lam_max >= 0):
        raise ValueError(f"mc: delta must be positive and lam_max not negative, got {delta} and {lam_max}")
    return Defense("mc", (MembraneConstraint(lam_max, delta, penalty),))
