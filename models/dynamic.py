"""LIF with an input gain for each time step."""

import torch
from torch import Tensor

from models.shaped import ShapedLIF


class DynamicLIF(ShapedLIF):
    """V[t] = decay U[t-1] + p_t I[t], with p [T] learnt by each layer; at p = 1, its start, it is LIF.

    Source: DLIF, Ding et al., "Robust Stable Spiking Neural Networks", ICML 2024.
    """

    p: Tensor

    def initial(self, steps: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"p": torch.ones(steps)}

    def drive(self, current: Tensor) -> Tensor:
        gain = self.p.view(-1, *[1] * (current.dim() - 1))
        return (gain * current).to(current.dtype)
