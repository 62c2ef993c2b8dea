"""Random changes of training images."""

import torch
from torch import Tensor
from torch.nn import functional


def crop_and_flip(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Random crop after zero padding, and random horizontal flip, each image on its own: [N, C, H, W] -> same."""
    n, _, height, width = x.shape
    shift = torch.randint(0, 2 * padding + 1, (2, n), generator=generator).to(x.device)
    flip = (torch.rand(n, generator=generator) < 0.5).to(x.device)
    rows = torch.arange(height, device=x.device) + shift[0][:, None]
    columns = torch.arange(width, device=x.device).expand(n, -1)
    columns = torch.where(flip[:, None], columns.flip(1), columns) + shift[1][:, None]
    padded = functional.pad(x, (padding,) * 4)
    images = torch.arange(n, device=x.device)[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
