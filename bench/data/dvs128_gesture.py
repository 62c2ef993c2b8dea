"""DVS128 Gesture (Amir et al., CVPR 2017): eleven gestures of the arms before an event camera."""

from fractions import Fraction
from functools import lru_cache, partial
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
from events import Recording
from events.formats.aedat2 import DVS128
from events.formats.aedat3 import read_aedat3
from events.formats.gesture import GESTURES, Gesture, labels_of, read_gestures, read_trials

_FOLDER = "DvsGesture"
_OFFICIAL = (1176, 288)
_MEND = (
    "download DvsGesture.tar.gz from https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8 and unpack it, so that "
    f"{_FOLDER}/trials_to_train.txt lies there"
)

PROTOCOL = Protocol(
    model="cnn-medium",
    eps=Fraction(8, 255),
    train_eps=Fraction(2, 255),
    recipe=Recipe(epochs=30, batch_size=32, holdout=100),
    n=288,
)


def load(data_dir: Path, *, T: int = 10, by: str = "number", size: int = 64, scale: str = "max") -> EventDataset:
    """Read the official files in `DIR/DvsGesture` and cut every trial into its gestures.

    The parts are those of the official lists of trials, so nobody's gestures are in both; within them, the order is
    that of the lists and then of each trial's table.

    Args:
        data_dir: the folder of datasets.
        T: frames a recording.
        by: `number` or `time`.
        size: height and width of a frame: 128 or a half of it, and so on.
        scale: as for `frames_dataset`.

    Raises:
        BenchError: missing or damaged files, or an option out of range.
    """
    framing = framing_for("dvs128-gesture", DVS128, T, by, size)
    folder = folder_of("dvs128-gesture", data_dir, _FOLDER, _MEND)
    train, test = (_part(folder, part) for part in ("train", "test"))
    note = how_many(len(train.labels), len(test.labels), _OFFICIAL)
    return frames_dataset("dvs128-gesture", train, test, GESTURES, framing, scale, PROTOCOL, note)


def _part(folder: Path, part: str) -> Labelled:
    listed = folder / f"trials_to_{part}.txt"
    if not listed.is_file():
        raise missing("dvs128-gesture", folder, _MEND)
    found = []
    try:
        for name in read_trials(listed):
            trial = folder / name
            found += [(trial, gesture) for gesture in read_gestures(labels_of(trial))]
    except (ValueError, OSError) as error:
        raise BenchError(f"dataset 'dvs128-gesture': {error}") from error
    return Labelled(Recordings(found, _cut), [gesture.label for _, gesture in found])


def _cut(source: tuple[Path, Gesture]) -> Recording:
    trial, gesture = source
    return gesture.cut_from(_trial(trial))


@lru_cache(maxsize=1)
def _trial(path: Path) -> Recording:
    # All gestures of a trial are asked for in turn, and the file is large.
    return read_aedat3(path, DVS128)


DVS128_GESTURE = DatasetSource(
    load,
    "DVS128 Gesture, event camera recordings of gestures, from its official files",
    PROTOCOL,
    partial(has_folder, _FOLDER),
    frames=True,
)
