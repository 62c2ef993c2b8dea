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

from bench.errors import BenchError
from bench.spec import Recipe


@dataclass(frozen=True)
class Protocol:
    """Defaults in which a result on a dataset means something.

    Attributes:
        model: architecture.
        eps: attack budget in pixel units (l_inf).
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
    """Images with labels, checked.

    Attributes:
        x_train, x_test: [N, C, H, W], uint8 in 0..255 or float32 in [0, 1].
        y_train, y_test: int64 [N] in [0, K).
        class_names: K names.
        mean, std: per-channel normalisation used inside models.
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

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            _check(self.name, part, getattr(self, f"x_{part}"), getattr(self, f"y_{part}"), self.num_classes)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise BenchError(
                f"dataset '{self.name}': train images are {list(self.x_train.shape[1:])}, "
                f"test images {list(self.x_test.shape[1:])}"
            )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.x_test.shape[1:]
        return channels, height, width

    @cached_property
    def train_hash(self) -> str:
        """SHA-256 over the decoded training images and labels."""
        return tensor_hash(self.x_train, self.y_train)

    @cached_property
    def test_hash(self) -> str:
        """SHA-256 over the decoded test images and labels."""
        return tensor_hash(self.x_test, self.y_test)


def pixels(x: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Stored images as float32 in [0, 1] on a device, [N, C, H, W]."""
    x = x.to(device)
    return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x


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
    """

    load: Callable[[Path], Dataset]
    summary: str
    protocol: Protocol
    at_hand: Callable[[Path], bool] = lambda data_dir: True


def _check(name: str, part: str, x: Tensor, y: Tensor, num_classes: int) -> None:
    problem = None
    if num_classes < 2:
        problem = f"there must be at least two classes, got {num_classes}"
    elif x.dim() != 4 or x.shape[1] not in (1, 2, 3, 4):
        problem = f"images must be [N, C, H, W] with 1 to 4 channels, got {list(x.shape)}"
    elif len(x) == 0:
        problem = "there are no images"
    elif y.dim() != 1 or len(y) != len(x):
        problem = f"{len(x)} images but labels of shape {list(y.shape)}"
    elif y.dtype != torch.int64:
        problem = f"labels must be integers, got {y.dtype}"
    elif int(y.min()) < 0 or int(y.max()) >= num_classes:
        problem = f"labels range over [{int(y.min())}, {int(y.max())}] with {num_classes} classes"
    elif x.dtype == torch.float32:
        if not bool(torch.isfinite(x).all()):
            problem = "images contain NaN or infinite pixels"
        elif float(x.min()) < 0 or float(x.max()) > 1:
            problem = f"float images must lie in [0, 1], got [{float(x.min()):g}, {float(x.max()):g}]"
    elif x.dtype != torch.uint8:
        problem = f"images must be uint8 or float32, got {x.dtype}"
    if problem:
        raise BenchError(f"dataset '{name}' ({part}): {problem}")
