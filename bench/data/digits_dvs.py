"""Simulated event recordings of scikit-learn's digits: event data without a camera and without a download."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from bench.data import digits
from bench.data.dataset import DatasetSource, Protocol
from bench.data.events import EventDataset, Labelled, frames_dataset, framing_for
from bench.spec import Recipe
from events import Sensor
from events.sensor import EventCamera

_ENLARGED = 2
_SENSOR = Sensor(16, 16)

# Of the frames' range. At 8/255 PGD-10 leaves nothing of an undefended network, at 1/255 almost all; here 40%.
PROTOCOL = Protocol(
    model="cnn-small",
    eps=Fraction(4, 255),
    train_eps=Fraction(4, 255),
    recipe=Recipe(epochs=20, batch_size=64, holdout=97),
    n=500,
)


def load(data_dir: Path, *, T: int = 6, by: str = "number", size: int = 8, scale: str = "max") -> EventDataset:
    """The digits, each pixel enlarged to 2x2, as a simulated camera records them in three saccades.

    SIMULATED: `events.sensor` says what of a real camera is in it and what is not. The split is that of `digits`.

    Args:
        data_dir: not used.
        T: frames a recording; 6 are two a saccade if cut by time.
        by: `number` or `time`.
        size: height and width of a frame: 16, 8, 4, 2 or 1. At 8 the small network sees a whole digit at once.
        scale: as for `frames_dataset`.

    Raises:
        BenchError: an option out of range.
    """
    framing = framing_for("digits-dvs", _SENSOR, T, by, size)
    still = digits.load(data_dir)
    images = torch.cat([still.x_train, still.x_test])[:, 0].double().numpy()
    recordings = EventCamera(_SENSOR).record(np.kron(images, np.ones((1, _ENLARGED, _ENLARGED))))
    n = len(still.x_train)
    train = Labelled(recordings[:n], still.y_train.tolist())
    test = Labelled(recordings[n:], still.y_test.tolist())
    note = f"{n:,} simulated recordings for training and {len(test.labels):,} for test."
    return frames_dataset("digits-dvs", train, test, still.class_names, framing, scale, PROTOCOL, note)


DIGITS_DVS = DatasetSource(
    load,
    "the digits before a SIMULATED event camera, built in",
    PROTOCOL,
    frames=True,
)
