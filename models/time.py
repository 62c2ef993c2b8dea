"""Time as a part of the batch, for everything that has no state."""

from torch import Tensor, nn


def merged(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a stateless module to every time step at once: [T, N, *] -> [T, N, *]."""
    return module(x.flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[1]))  # type: ignore[no-any-return]


def image_mean(x: Tensor) -> Tensor:
    """Mean over the image, [T, N, C, H, W] -> [T, N, C]; its gradient is one number a channel and stays one."""
    return x.sum((-2, -1)) / (x.shape[-2] * x.shape[-1])
