"""What a dataset is, and what it must hold to be one."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attacks.threat import Box
from bench.errors import BenchError
from bench.spec import Recipe

_COUNTS = (torch.uint8, torch.int16, torch.int32)
_LARGEST = 1 << 24
"""Above it float32 has no longer every whole number."""


@dataclass(frozen=True)
class Protocol:
    """Defaults in which a result on a dataset means something.

    Attributes:
        model: architecture.
        eps: attack budget in pixel units, of frames in units of the dataset's `scale` (l_inf).
        train_eps: budget of adversarial training.
        recipe: training.
        n: number of test images attacked.
    """

    model: str
    eps: Fraction
    train_eps: Fraction
    recipe: Recipe
    n: int


@dataclass(frozen=True)
class Dataset:
    """Images, or frames of event counts, with labels, checked.

    Attributes:
        x_train, x_test: images [N, C, H, W], uint8 in 0..255 or float32 in [0, 1]; or frames [N, T, C, H, W] of event
            counts, uint8, int16 or int32.
        y_train, y_test: int64 [N] in [0, K).
        class_names: K names.
        mean, std: per-channel normalisation used inside models, of what `pixels` gives.
        scale: the count that becomes 1. It is the unit of eps: with the largest count of the training frames eps is a
            share of their range, with 1 it is in counts. Images keep 255.

    Raises:
        BenchError: tensors that break this contract.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    protocol: Protocol
    scale: int = 255

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            _check(self.name, part, getattr(self, f"x_{part}"), getattr(self, f"y_{part}"), self.num_classes)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            what = "images" if self.x_test.dim() == 4 else "frames"
            raise BenchError(
                f"dataset '{self.name}': train {what} are {list(self.x_train.shape[1:])}, "
                f"test {what} {list(self.x_test.shape[1:])}"
            )
        if self.frames is None and self.scale != 255:
            raise BenchError(f"dataset '{self.name}': scale is for frames of counts; images have 255, got {self.scale}")
        if not 1 <= self.scale < _LARGEST:
            raise BenchError(f"dataset '{self.name}': scale must lie in [1, 2^24), got {self.scale}")
        if self.frames is not None and not self.high:
            raise BenchError(f"dataset '{self.name}': the frames hold no event; check how they were made")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image, or of each frame."""
        channels, height, width = self.x_test.shape[-3:]
        return channels, height, width

    @property
    def frames(self) -> int | None:
        """T, how many frames a recording has; None for images."""
        return self.x_test.shape[1] if self.x_test.dim() == 5 else None

    @property
    def low(self) -> float:
        """The least value that `pixels` may take."""
        return 0.0

    @cached_property
    def high(self) -> float:
        """The largest value that `pixels` may take: 1 for images; of frames what the largest count of all becomes."""
        if self.frames is None:
            return 1.0
        largest = max(int(self.x_train.max()), int(self.x_test.max()))
        # Through float32, so that this very count lies within.
        return float(pixels(torch.tensor([largest], dtype=torch.int32), scale=self.scale))

    @property
    def box(self) -> Box:
        """What an adversarial may hold."""
        counted = self.frames is not None or self.x_test.dtype == torch.uint8
        return Box(self.low, self.high, self.scale if counted else 0)

    def pixels(self, x: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Some of this dataset's images or frames as networks and attacks see them; see the function `pixels`."""
        return pixels(x, device, self.scale)

    @cached_property
    def train_hash(self) -> str:
        """SHA-256 over the decoded training images and labels, and the scale of counts."""
        return self._hash(self.x_train, self.y_train)

    @cached_property
    def test_hash(self) -> str:
        """SHA-256 over the decoded test images and labels, and the scale of counts."""
        return self._hash(self.x_test, self.y_test)

    def _hash(self, x: Tensor, y: Tensor) -> str:
        return tensor_hash(x, y) if self.frames is None else tensor_hash(x, y, torch.tensor(self.scale))


def pixels(x: Tensor, device: torch.device | str = "cpu", scale: int = 255) -> Tensor:
    """Stored images or frames as float32 on a device, [N, *]: integers divided by `scale`, floats as they are.

    Args:
        x: images [N, C, H, W], uint8 or float32 in [0, 1]; or frames of counts [N, T, C, H, W].
        device: where to.
        scale: the count that becomes 1; of images 255.
    """
    x = x.to(device)
    if x.dtype.is_floating_point:
        return x
    # Accelerators multiply by the reciprocal of a plain number, which may put a count an ulp beyond the box.
    divisor = scale if x.dim() == 4 else torch.tensor(scale, dtype=torch.float32, device=x.device)
    return x.to(torch.float32).div_(divisor)


def tensor_hash(*tensors: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class DatasetSource:
    """A registered dataset: how to get it.

    Attributes:
        load: from the data directory to the dataset.
        summary: one line for listings.
        protocol: its defaults, readable without loading it.
        at_hand: whether the data directory has all that it takes to load it, so that nothing is downloaded.
        frames: whether it is frames of event counts, whose range nobody knows before it is loaded.
    """

    load: Callable[[Path], Dataset]
    summary: str
    protocol: Protocol
    at_hand: Callable[[Path], bool] = lambda data_dir: True
    frames: bool = False


def _check(name: str, part: str, x: Tensor, y: Tensor, num_classes: int) -> None:
    problem = None
    if num_classes < 2:
        problem = f"there must be at least two classes, got {num_classes}"
    elif x.dim() == 5 and (x.shape[1] < 1 or x.shape[2] not in (1, 2, 3, 4)):
        problem = f"frames must be [N, T, C, H, W] with 1 to 4 channels, got {list(x.shape)}"
    elif x.dim() != 5 and (x.dim() != 4 or x.shape[1] not in (1, 2, 3, 4)):
        problem = f"images must be [N, C, H, W] with 1 to 4 channels, got {list(x.shape)}"
    elif len(x) == 0:
        problem = "there are no images" if x.dim() == 4 else "there are no frames"
    elif y.dim() != 1 or len(y) != len(x):
        problem = f"{len(x)} {'images' if x.dim() == 4 else 'recordings'} but labels of shape {list(y.shape)}"
    elif y.dtype != torch.int64:
        problem = f"labels must be integers, got {y.dtype}"
    elif int(y.min()) < 0 or int(y.max()) >= num_classes:
        problem = f"labels range over [{int(y.min())}, {int(y.max())}] with {num_classes} classes"
    else:
        problem = _about_images(x) if x.dim() == 4 else _about_frames(x)
    if problem:
        raise BenchError(f"dataset '{name}' ({part}): {problem}")


def _about_images(x: Tensor) -> str | None:
    if x.dtype == torch.float32:
        if not bool(torch.isfinite(x).all()):
            return "images contain NaN or infinite pixels"
        if float(x.min()) < 0 or float(x.max()) > 1:
            return f"float images must lie in [0, 1], got [{float(x.min()):g}, {float(x.max()):g}]"
    elif x.dtype != torch.uint8:
        return f"images must be uint8 or float32, got {x.dtype}"
    return None


def _about_frames(x: Tensor) -> str | None:
    if x.dtype not in _COUNTS:
        return f"frames must be whole event counts (uint8, int16 or int32), got {x.dtype}"
    if x.dtype != torch.uint8 and int(x.min()) < 0:
        return f"event counts must not be negative, got {int(x.min())}; give polarities a channel each"
    if int(x.max()) >= _LARGEST:
        return f"event counts must lie below 2^24, got {int(x.max())}"
    return None
