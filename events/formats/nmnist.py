"""The binary files of N-MNIST (Orchard et al., Frontiers in Neuroscience 2015): 40 bits an event, no header.

From the most significant bit on: x (8), y (8), polarity (1, 1 is ON), microseconds (23). The files of N-Caltech101 are
of the same form.
"""

from pathlib import Path

import numpy as np

from events.recording import Recording, Sensor

NMNIST_SENSOR = Sensor(34, 34)

_BYTES = 5
_LAST = 2**23 - 1


def read_nmnist(path: Path, sensor: Sensor = NMNIST_SENSOR) -> Recording:
    """Read one recording.

    The official files are in order of time. One that is not is refused rather than sorted, because damage looks like
    that. A file of no bytes is a recording of no events.

    Args:
        path: the file, `Train/7/00123.bin`.
        sensor: the camera's size.

    Raises:
        ValueError: half an event at the end, an event outside the sensor or out of order; names the file.
        OSError: the file cannot be read.
    """
    data = np.fromfile(path, np.uint8)
    if len(data) % _BYTES:
        raise ValueError(
            f"'{path}' is cut off or of another kind: {len(data)} bytes are not a multiple of {_BYTES}; fetch it again"
        )
    x, y, high, middle, low = data.reshape(-1, _BYTES).astype(np.int64).T
    t = (high & 0x7F) << 16 | middle << 8 | low
    try:
        return Recording(x, y, t, high >> 7, sensor)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged or of another kind: {error}") from error


def write_nmnist(path: Path, recording: Recording) -> None:
    """Write one recording; `read_nmnist` gives it back.

    Args:
        path: the file, overwritten if it exists.
        recording: at most 256x256 pixels and 2**23 - 1 microseconds (8.4 s) long.

    Raises:
        ValueError: it does not fit into the format.
        OSError: the file cannot be written.
    """
    if max(recording.sensor.height, recording.sensor.width) > 256:
        raise ValueError(f"'{path}': this format names at most 256x256 pixels, the sensor has {recording.sensor}")
    if len(recording) and recording.t[-1] > _LAST:
        raise ValueError(
            f"'{path}': this format ends at {_LAST} us and the recording at {recording.t[-1]}; "
            "subtract the first time, or cut it with Recording.between"
        )
    t = recording.t
    columns = (recording.x, recording.y, recording.p.astype(np.int64) << 7 | t >> 16, t >> 8 & 0xFF, t & 0xFF)
    path.write_bytes(np.stack([column.astype(np.uint8) for column in columns], axis=1).tobytes())
