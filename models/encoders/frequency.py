"""Frequency encoding: each time step is shown less of an image's high frequencies."""

import math

import torch
from torch import Tensor

from models.encoding import Encoder


class FrequencyEncoder(Encoder):
    """x_t = |IFFT2(M_t FFT2(x))|, where the square low-pass M_t keeps the frequencies -r_t <= k < r_t along each axis.

    r_t = (1 - step t) H / 2 of a side of H pixels: at 32 pixels and the default step 16, 14, 12, 10 and so on. A step
    that keeps everything shows the image itself: the transform there and back would leave pixels of value 0 with the
    sign of a rounding error, and so with a gradient of the wrong sign. In even sizes whole r_t keep the frequency -r_t
    and not r_t, as the official code does; what is then not real is why the magnitude is taken.

    Source: FEEL-SNN (Xu et al., NeurIPS 2024) and its code; on frames each step filters its own.

    Args:
        step: by how much of half the spectrum each step narrows the band, at least 0.

    Raises:
        ValueError: a step that is negative, or so large that some step would be shown nothing.
    """

    def __init__(self, step: float = 0.125) -> None:
        super().__init__()
        if not step >= 0:
            raise ValueError(f"step must not be negative, got {step}")
        self.step = step

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """As `Encoder.forward`; a static image is transformed once."""
        if self.step * (steps - 1) >= 1:
            raise ValueError(
                f"after {steps} steps of {self.step:g} no frequency is left; take fewer time steps, or a step below "
                f"1/{steps - 1}"
            )
        # A transform knows float32 and float64.
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        spectrum, shown = torch.fft.fft2(wide), []
        for t in range(steps):
            # One image for all steps, or a frame for each.
            own = t if len(x) > 1 else 0
            band = pass_band(x.shape[-2], x.shape[-1], 1 - self.step * t, x.device)
            shown.append(x[own] if band is None else torch.fft.ifft2(spectrum[own] * band).abs().to(x.dtype))
        return torch.stack(shown)

    def extra_repr(self) -> str:
        return f"step={self.step}"


def pass_band(height: int, width: int, share: float, device: torch.device) -> Tensor | None:
    """Which frequencies lie in [-r, r) with r = share * size / 2 along both axes.

    Args:
        height, width: of the image, in pixels.
        share: of half the spectrum, above 0.
        device: where the image is.

    Returns:
        bool [H, W] in the order of `fft2`; None where it would be all of them.
    """
    kept, whole = [], True
    for size in (height, width):
        r = share * size / 2
        low, high = max(math.ceil(-r), -(size // 2)), min(math.ceil(r) - 1, (size - 1) // 2)
        whole = whole and (low, high) == (-(size // 2), (size - 1) // 2)
        k = torch.arange(size, device=device)
        k = torch.where(k > (size - 1) // 2, k - size, k)
        kept.append((k >= low) & (k <= high))
    return None if whole else kept[0][:, None] & kept[1]
