"""Recordings as pictures."""

import torch
from torch import Tensor


def stills(x: Tensor) -> Tensor:
    """Recordings [N, T, C, H, W] as pictures [N, 3 or C, H, W] in [0, 1]; images [N, C, H, W] as they are.

    All frames together, the brightest spot of all recordings at 1; two polarities are red and blue.
    """
    if x.dim() == 4:
        return x
    together = x.mean(1)
    together = together / together.amax().clamp(min=1e-9)
    if x.shape[2] != 2:
        return together
    on, off = together.unbind(1)
    return torch.stack([on, torch.zeros_like(on), off], 1)
