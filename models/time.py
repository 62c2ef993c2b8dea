"""Time as a part of the batch, for everything that has no state."""

from torch import Tensor, nn


def merged(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a stateless module to every time step at once: [T, N, *] -> [T, N, *]."""
    return module(x.flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[1]))  # type: ignore[no-any-return]
