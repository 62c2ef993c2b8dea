"""LIF with a leak for each time step and neuron."""

import torch
from torch import Tensor

from models.lif import LIFParams
from models.shaped import ShapedLIF


class LeakyByStep(ShapedLIF):
    """V[t] = leak[t] U[t-1] + I[t] with a free parameter for every step and neuron: leak [T, *].

    Source: the evolutionary leak of FEEL-SNN, Xu et al., NeurIPS 2024.

    Args:
        leak: its value before training.
        **lif: arguments of `LIF`; `decay` is not used.
    """

    leak: Tensor

    def __init__(self, leak: float = 1.0, **lif: object) -> None:
        super().__init__(**lif)  # type: ignore[arg-type]
        self.initial_leak = leak

    def initial(self, steps: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"leak": torch.full((steps, *shape), self.initial_leak)}

    def constants(self, current: Tensor) -> LIFParams:
        return self.params._replace(decay=self.leak)
