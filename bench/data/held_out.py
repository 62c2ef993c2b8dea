"""A part of a training set in the place of the test set: what may be looked at as often as one likes."""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from bench.data.dataset import Dataset
from bench.data.events import EventDataset
from bench.errors import BenchError
from bench.names import HELD_OUT
from events import Recording

_SHARE, _MOST = 5, 5000
"""A fifth of the training images is held out unless a number is given, and not more than that many."""
_LEAST_TRAINED = 2


class Chosen(Sequence[Recording]):
    """Some recordings of others, read when they are asked for.

    Args:
        recordings: of which.
        chosen: which of them, in this order.
    """

    def __init__(self, recordings: Sequence[Recording], chosen: Sequence[int]) -> None:
        self.recordings, self.chosen = recordings, list(chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: Any) -> Any:
        """One recording, or some to be read later; raises as those it is made of."""
        if isinstance(number, slice):
            return Chosen(self.recordings, self.chosen[number])
        return self.recordings[self.chosen[number]]


def held_out(dataset: Dataset, count: int | None = None, of: int | None = None) -> Dataset:
    """The view of a dataset that a search over settings may see: trained on is a part of the training set, and its test
    set is the rest of that. The test set of the dataset is not in it.

    Which images are held out is drawn once for a number of images, alike for everybody, since files may be sorted by
    class; their order stays. The protocol holds out nothing more for the log of a training.

    Args:
        dataset: whose training set is divided.
        count: how many images are held out; a fifth, and 5,000 at most, if not given.
        of: the first so many training images are all there is, as with `--train-size`; all if not given.

    Returns:
        a dataset called `held-out:COUNT-of-OF:NAME`.

    Raises:
        BenchError: the numbers leave nothing to hold out or fewer than two images to train on, or the dataset is such a
            view already.
    """
    if dataset.name.startswith(HELD_OUT):
        raise BenchError(f"'{dataset.name}' is held out of a training set already; name the dataset itself")
    total = len(dataset.x_train)
    size = of or total
    if not 0 < size <= total:
        raise BenchError(f"dataset '{dataset.name}' has {total} training images, so none can be held out of {size}")
    most = size - _LEAST_TRAINED
    kept = default_count(size) if count is None else count
    if not 1 <= kept <= most:
        if most < 1:
            raise BenchError(f"{size} training images of '{dataset.name}' are too few to hold some out; give more")
        raise BenchError(
            f"of {size} training images of '{dataset.name}' 1 to {most} can be held out, so that something is left to "
            f"train on; got {kept}"
        )
    # RandomState's stream is frozen by numpy's compatibility policy; Generator's is not.
    order = np.random.RandomState(0).permutation(size)
    test, train = np.sort(order[:kept]), np.sort(order[kept:])
    recipe = replace(dataset.protocol.recipe, holdout=0, train_size=0)
    values: dict[str, Any] = {f.name: getattr(dataset, f.name) for f in fields(dataset)}
    for part, index in (("train", train), ("test", test)):
        chosen = torch.from_numpy(index)
        values |= {f"x_{part}": dataset.x_train[chosen], f"y_{part}": dataset.y_train[chosen]}
        if isinstance(dataset, EventDataset):
            values[f"recordings_{part}"] = Chosen(dataset.recordings_train, index.tolist())
    values["name"] = f"{HELD_OUT}{kept}-of-{size}:{dataset.name}"
    values["protocol"] = replace(dataset.protocol, recipe=recipe, n=kept)
    return type(dataset)(**values)


def default_count(size: int) -> int:
    """How many of so many training images are held out if nobody says."""
    return max(1, min(size // _SHARE, _MOST))


def numbers_of(head: str) -> tuple[int | None, int | None]:
    """How many images are held out, and of how many, as the beginning of a view's name says; see `split_held_out`."""
    numbers = [*map(int, re.findall(r"\d+", head)), None, None]
    return numbers[0], numbers[1]
