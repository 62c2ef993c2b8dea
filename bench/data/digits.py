"""scikit-learn's handwritten digits: 1,797 real 8x8 grey images that come with the library."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

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
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # RandomState's stream is frozen by numpy's compatibility policy; Generator's is not.
    order = np.random.RandomState(0).permutation(len(bunch.images))
    x = torch.from_numpy((bunch.images[order] / 16).astype(np.float32))[:, None]
    y = torch.from_numpy(bunch.target[order].astype(np.int64))
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


DIGITS = DatasetSource(load, "scikit-learn's 8x8 digits, built in (1,297 train, 500 test)", PROTOCOL)
