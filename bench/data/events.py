"""Recordings of event cameras as a dataset: frames of counts for networks, and the recordings they came of."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import Dataset, Protocol
from bench.data.statistics import channel_statistics
from bench.errors import BenchError
from events import Framing, Recording, Sensor

Source = TypeVar("Source")

_TYPES = (np.uint8, np.int16, np.int32)


class Recordings(Sequence[Recording], Generic[Source]):
    """Recordings that are read when they are asked for: those of a whole dataset do not fit into memory.

    Args:
        sources: what each is read from, for example its file.
        read: reads one.
    """

    def __init__(self, sources: Sequence[Source], read: Callable[[Source], Recording]) -> None:
        self.sources, self.read = tuple(sources), read

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> Recording: ...

    @overload
    def __getitem__(self, index: slice) -> "Recordings[Source]": ...

    def __getitem__(self, index: int | slice) -> "Recording | Recordings[Source]":
        """One recording, or some to be read later.

        Raises:
            BenchError: its file is missing, damaged or of another kind.
        """
        if isinstance(index, slice):
            return Recordings(self.sources[index], self.read)
        try:
            return self.read(self.sources[index])
        except (ValueError, OSError) as error:
            raise BenchError(str(error)) from error


@dataclass(frozen=True)
class Labelled:
    """One part of a dataset.

    Attributes:
        recordings: N of them.
        labels: N classes.
    """

    recordings: Sequence[Recording]
    labels: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class EventDataset(Dataset):
    """A dataset of frames that knows the recordings its frames came of.

    Attributes:
        framing: makes `x_test[i]` of `recordings_test[i]`; an edited recording is framed by the same.
        recordings_train, recordings_test: in the order of the frames.
        note: a sentence for whoever runs something on it: how many recordings there are.
    """

    framing: Framing
    recordings_train: Sequence[Recording]
    recordings_test: Sequence[Recording]
    note: str = ""

    @cached_property
    def test_recordings_hash(self) -> str:
        """SHA-256 over the test recordings and how they are framed, which the hash of the frames does not fix."""
        return self._recordings_hash(self.recordings_test)

    @cached_property
    def train_recordings_hash(self) -> str:
        """As `test_recordings_hash`, of the training recordings and their labels."""
        return self._recordings_hash(self.recordings_train, self.y_train.tolist())

    def _recordings_hash(self, recordings: Sequence[Recording], labels: Sequence[int] = ()) -> str:
        digest = hashlib.sha256(f"{self.framing} {list(labels)}".encode())
        # One at a time: those of a whole dataset do not fit into memory.
        for number in range(len(recordings)):
            digest.update(recordings[number].sha256.encode())
        return digest.hexdigest()


def framing_for(dataset: str, sensor: Sensor, T: int, by: str, size: int) -> Framing:
    """The framing that a dataset's options ask for.

    Args:
        dataset: its name, for messages.
        sensor: of its recordings.
        T, by: as for `Framing`.
        size: height and width of a frame.

    Raises:
        BenchError: a value that makes no frames of whole counts.
    """
    try:
        framing = Framing(T, by, size, size)
        framing.check(sensor)
    except ValueError as error:
        raise BenchError(f"dataset '{dataset}': {error}") from error
    return framing


def frames_dataset(
    name: str,
    train: Labelled,
    test: Labelled,
    class_names: Sequence[str],
    framing: Framing,
    scale: str,
    protocol: Protocol,
    note: str = "",
) -> EventDataset:
    """Frame all recordings.

    Args:
        name: of the dataset.
        train, test: the two parts.
        class_names: K names.
        framing: how.
        scale: `max`, which makes the largest count of the training frames 1.0, or the count that is 1.0, at least 1.
            It is the unit of eps: `max` gives shares of the frames' range, 1 gives counts.
        protocol: defaults for runs; what it holds out of training is at most a tenth.
        note: a sentence on where the recordings are from, and how many there are.

    Raises:
        BenchError: a scale of another form, a recording that cannot be read, or frames without any event.
    """
    fixed = _fixed_scale(name, scale)
    x_train, x_test = (_counts(part.recordings, framing) for part in (train, test))
    y_train, y_test = (torch.tensor(part.labels, dtype=torch.int64) for part in (train, test))
    unit = fixed or max(int(x_train.max()), 1)
    mean, std = channel_statistics(x_train, unit)
    recipe = replace(protocol.recipe, holdout=min(protocol.recipe.holdout, len(x_train) // 10))
    return EventDataset(
        name,
        x_train,
        y_train,
        x_test,
        y_test,
        tuple(class_names),
        mean,
        std,
        replace(protocol, recipe=recipe, n=min(protocol.n, len(x_test))),
        unit,
        framing=framing,
        recordings_train=train.recordings,
        recordings_test=test.recordings,
        note=note,
    )


def how_many(train: int, test: int, of: tuple[int, int]) -> str:
    """The sentence on how many recordings there are, and how many of the official ones are missing."""
    found = f"{train:,} recordings for training and {test:,} for test"
    return f"{found}." if (train, test) == of else f"{found}, of {of[0]:,} and {of[1]:,} official ones."


def folder_of(name: str, data_dir: Path, folder: str, mend: str) -> Path:
    """The folder that holds a dataset's official files.

    Args:
        name: of the dataset, for messages.
        data_dir: the folder of datasets.
        folder: its name in there.
        mend: where the files are from and how they must lie.

    Raises:
        BenchError: it is not there.
    """
    found = data_dir / folder
    if not found.is_dir():
        raise missing(name, found, mend)
    return found


def has_folder(folder: str, data_dir: Path) -> bool:
    """Whether a dataset's official files may be there."""
    return (data_dir / folder).is_dir()


def missing(name: str, folder: Path, mend: str) -> BenchError:
    """The complaint that a dataset's official files are not there."""
    return BenchError(f"{name} is not in '{folder}': {mend}; --data-dir names another folder than '{folder.parent}'")


def _fixed_scale(name: str, text: str) -> int:
    """The count that is 1.0, or 0 for the largest."""
    if text == "max":
        return 0
    # The text is a part of the dataset's name, so a count has one way to be written.
    if not re.fullmatch(r"[1-9][0-9]*", text):
        raise BenchError(
            f"dataset '{name}': scale must be max or a count of at least 1, got '{text}'; write 1 and not 01"
        )
    return int(text)


def _counts(recordings: Sequence[Recording], framing: Framing) -> Tensor:
    """Frames [N, T, 2, H, W] in the smallest type that holds their counts."""
    kinds = iter(_TYPES)
    kind = next(kinds)
    found = np.zeros((len(recordings), framing.T, 2, framing.height, framing.width), kind)
    for number, recording in enumerate(recordings):
        frames = framing.frames(recording)
        while frames.max() > np.iinfo(kind).max:
            kind = next(kinds)
            found = found.astype(kind)
        found[number] = frames
    return torch.from_numpy(found)
