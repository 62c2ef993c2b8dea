"""scikit-learn's handwritten digits: 1,797 real 8x8 grey images that come with the library."""

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.dataset import Dataset, DatasetSource, Protocol
from bench.spec import Recipe

_TEST = 500

# 8/255 hardly moves an 8x8 digit and at 0.2 almost nothing survives; at 0.1 PGD-40 leaves an
# undefended network near 40%, far from floor and ceiling.
PROTOCOL = Protocol(
    model="cnn-small",
    eps=Fraction(10, 100),
    train_eps=Fraction(10, 100),
    recipe=Recipe(epochs=15, batch_size=64, holdout=97),
    n=_TEST,
)


def load(data_dir: Path) -> Dataset:
    """The digits in a fixed shuffled split: 1,297 for training, 500 for test."""
    images, target = _read()
    # RandomState's stream is frozen by numpy's compatibility policy; Generator's is not.
    order = np.random.RandomState(0).permutation(len(images))
    x = torch.from_numpy((images[order] / 16).astype(np.float32))[:, None]
    y = torch.from_numpy(target[order].astype(np.int64))
    return Dataset(
        "digits",
        x[:-_TEST],
        y[:-_TEST],
        x[-_TEST:],
        y[-_TEST:],
        tuple("0123456789"),
        mean=(0.3053,),
        std=(0.3762,),
        protocol=PROTOCOL,
    )


def _read() -> tuple[NDArray[Any], NDArray[Any]]:
    """Images [1797, 8, 8] with values 0 to 16, and labels."""
    # Importing scikit-learn takes seconds, and an answer from the store should not: read its file.
    spec = importlib.util.find_spec("sklearn")
    path = Path(spec.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if spec else Path()
    if path.is_file():
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


DIGITS = DatasetSource(load, "scikit-learn's 8x8 digits, built in (1,297 train, 500 test)", PROTOCOL)
