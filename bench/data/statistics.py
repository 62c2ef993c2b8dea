"""The normalisation that a network applies to its inputs, measured on training data."""

import math

import torch
from torch import Tensor

_LEAST_STD = 1e-3
_RECORDINGS = 64


def channel_statistics(x: Tensor, scale: int = 255) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of what `pixels` makes of `x`, rounded to 4 decimals.

    Args:
        x: images [N, C, H, W], uint8 or float32; or frames of counts [N, T, C, H, W].
        scale: the count that becomes 1.

    Returns:
        C means, and C standard deviations of at least 0.001.
    """
    if x.dim() == 5:
        return _of_counts(x, scale)
    channels = x.transpose(0, 1).flatten(1).double() / (scale if x.dtype == torch.uint8 else 1)
    std = channels.std(1).clamp(min=_LEAST_STD)
    return _rounded(channels.mean(1).tolist()), _rounded(std.tolist())


def _of_counts(x: Tensor, scale: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # Exact sums of whole numbers, a few recordings at a time: as floats a whole set would fill the memory.
    count = x.numel() // x.shape[2]
    total = torch.zeros(x.shape[2], dtype=torch.int64)
    squares = torch.zeros_like(total)
    for part in x.split(_RECORDINGS):
        wide = part.to(torch.int64)
        total += wide.sum((0, 1, 3, 4))
        squares += wide.square().sum((0, 1, 3, 4))
    mean = [s / count for s in total.tolist()]
    pairs = zip(total.tolist(), squares.tolist(), strict=True)
    spread = [math.sqrt((count * q - s * s) / (count * max(count - 1, 1))) for s, q in pairs]
    return _rounded([m / scale for m in mean]), _rounded([max(s / scale, _LEAST_STD) for s in spread])


def _rounded(values: list[float]) -> tuple[float, ...]:
    return tuple(round(float(v), 4) for v in values)
