"""Random gates after a spiking layer."""

from typing import Any

import torch
from torch import Tensor

from models.random import uniform_like
from models.shaped import ShapedLIF

LEAST, TEMPERATURE = 0.1, 0.5
_EDGE = 1e-3
"""The slope of the relaxation at u = p grows as 1/(1 - p): without an end a single draw throws theta out of [0.1, 1],
and a gate thrown below stays as it is. The official code keeps its logits about as far from the ends."""


class GatedLIF(ShapedLIF):
    """LIF whose spikes pass a gate with a probability p of each neuron's own, drawn for every step and image.

    p = clip(theta, 0.1, 1); theta [*] is learnt and begins at 1, where every gate is open. The gates follow neither
    `train()` nor `eval()`; `noise_on` switches them: without, a spike leaves the layer as p.

    Source: StoG, Ding et al., AAAI 2024. Theta is differentiated by the binary-concrete relaxation of temperature 0.5,
    with the sign of that derivative; the official code has the opposite one, and a mean over steps and images where
    the chain rule has their sum.
    """

    undecayed = ("theta",)
    theta: Tensor

    def __init__(self, **lif: object) -> None:
        super().__init__(**lif)  # type: ignore[arg-type]
        self.noise_on = True

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.noise_on

    def initial(self, steps: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"theta": torch.ones(shape)}

    @property
    def open_probability(self) -> Tensor:
        """p of each neuron, [*]."""
        return self.theta.clamp(LEAST, 1)

    def emit(self, spikes: Tensor) -> Tensor:
        if not self.noise_on:
            return self.emitted_on_average(spikes)
        return spikes * gates(self.open_probability, uniform_like(spikes, self.layer)).to(spikes.dtype)

    def emitted_on_average(self, spikes: Tensor) -> Tensor:
        return spikes * self.open_probability.to(spikes.dtype)


def gates(p: Tensor, u: Tensor) -> Tensor:
    """1 where u <= p, else 0; differentiated in p by the binary-concrete relaxation of temperature 0.5.

    With s = sigmoid((logit p - logit u) / 0.5) the derivative is ds/dp = s (1 - s) / (0.5 p (1 - p)), which is never
    negative, goes to 0 for p -> 1 at any u below 1, and is 0 at p = 1. Between 0.999 and 1 it is that of p = 0.999.

    Source: Maddison et al., ICLR 2017 (the Concrete distribution).

    Args:
        p: probabilities [*], in (0, 1].
        u: uniform numbers [T, N, *], in (0, 1].

    Returns:
        [T, N, *], as wide as `u`.
    """
    return _Gates.apply(p, u)  # type: ignore[no-any-return]


class _Gates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, u: Tensor) -> Tensor:
        ctx.save_for_backward(p, u)
        return (u <= p).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        p, u = ctx.saved_tensors
        inside, drawn = p.clamp(max=1 - _EDGE), u.clamp(_EDGE, 1 - _EDGE)
        s = torch.sigmoid((inside.logit() - drawn.logit()) / TEMPERATURE)
        slope = s * (1 - s) / (TEMPERATURE * inside * (1 - inside))
        # A gate that is open for sure does not learn from draws that could not have closed it.
        slope = slope.masked_fill(p >= 1, 0)
        return (grads[0] * slope).flatten(0, 1).sum(0).to(p.dtype), None
