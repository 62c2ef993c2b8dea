"""N-MNIST (Orchard et al., Frontiers in Neuroscience 2015): MNIST's digits, filmed by an event camera in saccades."""

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
from events.formats.nmnist import NMNIST_SENSOR, read_nmnist

_FOLDER = "NMNIST"
_OFFICIAL = (60_000, 10_000)
_MEND = (
    f"download Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist and unpack them to "
    f"{_FOLDER}/Train/0 to 9 and {_FOLDER}/Test/0 to 9"
)

PROTOCOL = Protocol(
    model="cnn-medium",
    eps=Fraction(8, 255),
    train_eps=Fraction(2, 255),
    recipe=Recipe(epochs=15, batch_size=64, holdout=1000),
    n=1000,
)


def load(data_dir: Path, *, T: int = 10, by: str = "number", size: int = 34, scale: str = "max") -> EventDataset:
    """Read the official files in `DIR/NMNIST`, as many as there are, in the order of their numbers, which is MNIST's.

    Args:
        data_dir: the folder of datasets.
        T: frames a recording.
        by: `number` or `time`.
        size: height and width of a frame: 34, 17, 2 or 1.
        scale: as for `frames_dataset`.

    Raises:
        BenchError: missing or damaged files, or an option out of range.
    """
    framing = framing_for("n-mnist", NMNIST_SENSOR, T, by, size)
    folder = folder_of("n-mnist", data_dir, _FOLDER, _MEND)
    files = [_files(folder / part) for part in ("Train", "Test")]
    train, test = (
        Labelled(Recordings(paths, read_nmnist), [int(path.parent.name) for path in paths]) for paths in files
    )
    note = how_many(len(train.labels), len(test.labels), _OFFICIAL)
    return frames_dataset("n-mnist", train, test, tuple("0123456789"), framing, scale, PROTOCOL, note)


def _files(folder: Path) -> Sequence[Path]:
    paths = list(folder.glob("[0-9]/*.bin"))
    if stray := [path for path in paths if not path.stem.isdecimal()]:
        raise BenchError(f"'{stray[0]}' is none of N-MNIST's files, which are numbers: 00123.bin")
    if not paths:
        raise missing("n-mnist", folder.parent, _MEND)
    return sorted(paths, key=lambda path: (int(path.stem), path.parent.name))


N_MNIST = DatasetSource(
    load,
    "N-MNIST, event camera recordings of digits, from its official files",
    PROTOCOL,
    partial(has_folder, _FOLDER),
    frames=True,
)
