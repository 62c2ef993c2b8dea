"""The digits at 4x4: small enough to compute exact robust accuracies on."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from bench.data import digits
from bench.data.dataset import Dataset, DatasetSource, Protocol
from bench.spec import Recipe

PROTOCOL = Protocol(
    model="tiny",
    eps=Fraction(5, 100),
    train_eps=Fraction(5, 100),
    recipe=Recipe(epochs=60, batch_size=64, lr=0.3, holdout=97),
    n=100,
)


def load(data_dir: Path) -> Dataset:
    """The digits, each 2x2 block averaged (exact in float32), in the split of `digits`."""
    full = digits.load(data_dir)
    return replace(
        full,
        name="digits4",
        x_train=_pooled(full.x_train),
        x_test=_pooled(full.x_test),
        mean=(0.3056,),
        std=(0.3025,),
        protocol=PROTOCOL,
    )


def _pooled(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2)


DIGITS4 = DatasetSource(load, "the digits averaged to 4x4, for exact robust accuracy (bench truth)", PROTOCOL)
