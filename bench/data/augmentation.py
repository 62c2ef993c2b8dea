"""Random changes of training images and frames."""

import torch
from torch import Tensor
from torch.nn import functional


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images [N, C, H, W] by `crop_and_flip`, frames [N, T, C, H, W] by `shifted`."""
    return crop_and_flip(x, generator) if x.dim() == 4 else shifted(x, generator)


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


def shifted(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Random crop after zero padding, the same for all frames of a recording: [N, T, C, H, W] -> same.

    What leaves the sensor is gone, and where nothing comes in no event was. No flip: it would turn the direction of
    every motion around.
    """
    n, _, _, height, width = x.shape
    shift = torch.randint(0, 2 * padding + 1, (2, n), generator=generator).tolist()
    padded = functional.pad(x, (padding,) * 4)
    crops = zip(padded, *shift, strict=True)
    return torch.stack([frames[..., top : top + height, left : left + width] for frames, top, left in crops])
