"""A user's own images, or frames of event counts, from one `.npz` file."""

import zipfile
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import Dataset, Protocol
from bench.data.statistics import channel_statistics
from bench.errors import BenchError
from bench.spec import Recipe

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")

_SMALL = 16

PROTOCOL = Protocol(
    model="cnn-medium",
    eps=Fraction(8, 255),
    train_eps=Fraction(2, 255),
    recipe=Recipe(epochs=30, batch_size=128, holdout=500),
    n=1000,
)


def load_npz(
    path: Path,
    name: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    protocol: Protocol = PROTOCOL,
) -> Dataset:
    """Read `x_train, y_train, x_test, y_test` and, if present, `class_names` and the `scale` of frames.

    Args:
        path: the file. Images are uint8 [N, H, W, C] or float [N, C, H, W] in [0, 1]; frames are integer event counts
            [N, T, C, H, W], divided by `scale`, which is the largest count of the training frames if not given;
            labels are integers.
        name: display name; the file's stem by default.
        mean, std: normalisation; measured on the training images by default.
        protocol: defaults for runs on it.

    Raises:
        BenchError: missing, damaged, or not of this form. Nothing in the file is ever unpickled.
    """
    name = name or path.stem
    if not path.is_file():
        raise BenchError(f"dataset '{path}' is a folder, not a file" if path.is_dir() else f"no dataset file '{path}'")
    if not zipfile.is_zipfile(path):
        raise BenchError(f"'{path}' is damaged or not an .npz file; make one with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _ARRAYS if key not in archive]
            if missing:
                raise BenchError(f"'{path}' lacks {', '.join(missing)}; it holds {', '.join(archive) or 'nothing'}")
            arrays = {key: archive[key] for key in archive}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, AttributeError) as error:
        raise BenchError(f"'{path}' is damaged or not an .npz file: {error}") from error
    x_train, x_test = (_images(path, arrays[key]) for key in ("x_train", "x_test"))
    y_train, y_test = (_labels(path, arrays[key]) for key in ("y_train", "y_test"))
    class_names = _class_names(path, arrays.get("class_names"), y_train, y_test)
    scale = _scale(path, arrays.get("scale"), x_train)
    if mean is None or std is None:
        mean, std = channel_statistics(x_train, scale)
    # A tenth is enough to watch a small set's training.
    holdout = min(protocol.recipe.holdout, len(x_train) // 10)
    protocol = replace(
        protocol,
        # Three strides of 2 would leave little of a small image.
        model="cnn-small" if min(x_train.shape[-2:]) < _SMALL else protocol.model,
        recipe=replace(protocol.recipe, holdout=holdout),
        n=min(protocol.n, len(x_test)),
    )
    return Dataset(name, x_train, y_train, x_test, y_test, class_names, mean, std, protocol, scale)


def _images(path: Path, array: np.ndarray) -> Tensor:
    if array.ndim == 5:
        return _frames(path, array)
    if array.ndim != 4:
        mend = "; give grey images a channel: x[..., None] (uint8) or x[:, None] (float)" if array.ndim == 3 else ""
        raise BenchError(f"'{path}': images must have four dimensions, got {list(array.shape)}{mend}")
    if array.dtype == np.uint8:
        if array.shape[3] > 4:
            raise BenchError(
                f"'{path}': uint8 images must be [N, H, W, C], got {list(array.shape)}; "
                "x.transpose(0, 2, 3, 1) turns [N, C, H, W] into that"
            )
        array = array.transpose(0, 3, 1, 2)
    elif np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)
    else:
        raise BenchError(f"'{path}': images must be uint8 or float, got {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array))


def _frames(path: Path, array: np.ndarray) -> Tensor:
    """Event counts in a type that torch reads and that holds them, as small as they came."""
    if not np.issubdtype(array.dtype, np.integer):
        raise BenchError(
            f"'{path}': frames [N, T, C, H, W] must be whole event counts, got {array.dtype}; "
            "store the counts themselves, x.astype(numpy.int16), and their `scale` beside them"
        )
    limits = np.iinfo(np.int32)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise BenchError(f"'{path}': event counts of up to {int(array.max())} are no counts of events")
    known = array.dtype in (np.uint8, np.int16)
    return torch.from_numpy(np.ascontiguousarray(array, None if known else np.int32))


def _scale(path: Path, given: np.ndarray | None, x_train: Tensor) -> int:
    """What counts are divided by; of images always 255."""
    if given is None:
        return 255 if x_train.dim() == 4 else max(int(x_train.max()), 1) if len(x_train) else 1
    if given.size != 1 or not np.issubdtype(given.dtype, np.integer):
        raise BenchError(f"'{path}': scale must be one whole number, got {given.dtype} {list(given.shape)}")
    # Divided by before anybody checks the dataset.
    if int(given.reshape(-1)[0]) < 1:
        raise BenchError(f"'{path}': scale must be at least 1, got {int(given.reshape(-1)[0])}")
    return int(given.reshape(-1)[0])


def _labels(path: Path, array: np.ndarray) -> Tensor:
    if array.ndim == 1 and not len(array):
        raise BenchError(f"'{path}': there are no labels")
    if not np.issubdtype(array.dtype, np.integer) or array.ndim != 1:
        raise BenchError(f"'{path}': labels must be integers [N], got {array.dtype} {list(array.shape)}")
    return torch.from_numpy(array.astype(np.int64))


def _class_names(path: Path, given: np.ndarray | None, y_train: Tensor, y_test: Tensor) -> tuple[str, ...]:
    """The names given, or the numbers of the labels that occur in training."""
    if given is not None:
        return tuple(str(item) for item in given)
    count, stray = int(y_train.max()) + 1, int(y_test.max())
    if count > len(y_train):
        raise BenchError(f"'{path}': label {count - 1} with {len(y_train)} training images; labels must count from 0")
    if stray >= count:
        raise BenchError(
            f"'{path}': y_test holds label {stray}, y_train none above {count - 1}; if it is meant, give class_names"
        )
    return tuple(str(k) for k in range(count))
