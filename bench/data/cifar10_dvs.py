"""CIFAR10-DVS (Li et al., Frontiers in Neuroscience 2017): images of CIFAR-10, moved before a DVS128."""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

from bench.data.dataset import DatasetSource, Protocol
from bench.data.events import (
    EventDataset,
    Labelled,
    Recordings,
    folder_of,
    frames_dataset,
    framing_for,
    has_folder,
    how_many,
    missing,
)
from bench.errors import BenchError
from bench.spec import Recipe
from events.formats.aedat2 import DVS128, read_cifar10_dvs

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_CLASS, FIRST_TEST = 1000, 900
TEST_LIST_SHA256 = "59106b274db623efa7cc0f1257ab197e5ebdd703ddc9798f64a8ca4fa510f745"
"""SHA-256 of the names of the test set's files in its order, one a line: whoever splits in another way can tell."""

_FOLDER = "CIFAR10DVS"
_MEND = (
    "download airplane.zip to truck.zip from https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 and unpack "
    f"them to {_FOLDER}/airplane/cifar10_airplane_0.aedat and so on"
)

# As the TGO paper's networks on CIFAR, but without its crops and flips.
PROTOCOL = Protocol(
    model="wrn16-4",
    eps=Fraction(8, 255),
    train_eps=Fraction(2, 255),
    recipe=Recipe(epochs=300, batch_size=128, holdout=500),
    n=1000,
)


def load(data_dir: Path, *, T: int = 10, by: str = "number", size: int = 64, scale: str = "max") -> EventDataset:
    """Read the official files in `DIR/CIFAR10DVS`, as many as there are.

    There is no official split. Here the last tenth of each class is the test set, by the files' own numbers (900 to
    999), as in most code on this dataset; the first tenth or a random one gives other accuracies. Within either part,
    files are in the order of their numbers and then of the classes, so that the first n hold all classes alike.

    Args:
        data_dir: the folder of datasets.
        T: frames a recording.
        by: `number` or `time`.
        size: height and width of a frame: 128 or a half of it, and so on.
        scale: as for `frames_dataset`.

    Raises:
        BenchError: missing or damaged files, or an option out of range.
    """
    framing = framing_for("cifar10-dvs", DVS128, T, by, size)
    folder = folder_of("cifar10-dvs", data_dir, _FOLDER, _MEND)
    found = sorted((number, label, path) for label in range(len(CLASSES)) for number, path in _files(folder, label))
    parts = [[entry for entry in found if (entry[0] >= FIRST_TEST) == last] for last in (False, True)]
    if not all(parts):
        raise missing("cifar10-dvs", folder, _MEND)
    train, test = (
        Labelled(Recordings([path for *_, path in part], read_cifar10_dvs), [label for _, label, _ in part])
        for part in parts
    )
    official = (len(CLASSES) * FIRST_TEST, len(CLASSES) * (PER_CLASS - FIRST_TEST))
    note = how_many(len(train.labels), len(test.labels), official)
    return frames_dataset("cifar10-dvs", train, test, CLASSES, framing, scale, PROTOCOL, note)


def listed_for_test() -> Sequence[str]:
    """The files of the whole test set, in its order."""
    numbers = range(FIRST_TEST, PER_CLASS)
    return [f"{name}/cifar10_{name}_{number}.aedat" for number in numbers for name in CLASSES]


def _files(folder: Path, label: int) -> list[tuple[int, Path]]:
    """The files of a class with their numbers."""
    name = CLASSES[label]
    found = []
    for path in (folder / name).glob("*.aedat"):
        match = re.fullmatch(rf"cifar10_{name}_(\d+)", path.stem)
        if not match or int(match[1]) >= PER_CLASS:
            raise BenchError(f"'{path}' is none of CIFAR10-DVS's files, which are cifar10_{name}_0 to 999.aedat")
        found.append((int(match[1]), path))
    return found


CIFAR10_DVS = DatasetSource(
    load,
    "CIFAR10-DVS, event camera recordings of images, from its official files",
    PROTOCOL,
    partial(has_folder, _FOLDER),
    frames=True,
)
