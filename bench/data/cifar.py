"""CIFAR-10 and CIFAR-100: from a prepared `.npz`, from torchvision's files, or downloaded."""

from fractions import Fraction
from functools import partial
from pathlib import Path

import torch

from bench.data.dataset import Dataset, DatasetSource, Protocol
from bench.data.npz import load_npz
from bench.errors import BenchError
from bench.spec import Recipe

_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}

# The TGO paper, section 5.1; batch size, momentum and weight decay are not stated there and follow SNN-RAT's code.
PROTOCOL = Protocol(
    model="wrn16-4",
    eps=Fraction(8, 255),
    train_eps=Fraction(2, 255),
    recipe=Recipe(epochs=300, batch_size=128, augment=True, holdout=1000),
    n=1000,
)


def load(name: str, data_dir: Path) -> Dataset:
    """Load `DIR/NAME.npz` if it is there, else torchvision's copy in DIR, downloading it if need be.

    Raises:
        BenchError: not there and not downloadable, or damaged.
    """
    mean, std = _STATISTICS[name]
    prepared = data_dir / f"{name}.npz"
    if prepared.exists():
        return load_npz(prepared, name=name, mean=mean, std=std, protocol=PROTOCOL)
    from torchvision import datasets

    cls = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        train, test = (cls(data_dir, train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:
        raise BenchError(
            f"{name} is neither in '{data_dir}' nor could it be downloaded ({error}); "
            f"put {name}.npz or torchvision's files there, or name their folder with --data-dir"
        ) from error
    x_train, x_test = (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test))
    y_train, y_test = (torch.tensor(part.targets) for part in (train, test))
    return Dataset(name, x_train, y_train, x_test, y_test, tuple(train.classes), mean, std, PROTOCOL)


def at_hand(name: str, data_dir: Path) -> bool:
    """Whether `load` would find it without a download."""
    unpacked = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    return (data_dir / f"{name}.npz").exists() or (data_dir / unpacked).is_dir()


CIFAR10 = DatasetSource(
    partial(load, "cifar10"), "CIFAR-10, 32x32 colour, 10 classes", PROTOCOL, partial(at_hand, "cifar10")
)
CIFAR100 = DatasetSource(
    partial(load, "cifar100"), "CIFAR-100, 32x32 colour, 100 classes", PROTOCOL, partial(at_hand, "cifar100")
)
