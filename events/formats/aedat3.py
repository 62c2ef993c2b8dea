"""AEDAT 3.1 files, as DVS128 Gesture comes.

A header of lines that ends in `#!END-HEADER`, then packets of events of one type each, little-endian (iniVation's
description of the format). A packet's header has 28 bytes: type and source (16 bits each), size of an event, offset of
its timestamp, overflows of the timestamp so far, capacity, number of events, number of valid events (32 bits each).
A polarity event (type 1) has 8 bytes: a word with x (bits 31 to 17), y (16 to 2), polarity (1, 1 is ON) and validity
(0), and 31 bits of microseconds.
"""

import struct
from pathlib import Path

import numpy as np

from events.recording import Recording, Sensor

_MAGIC = b"#!AER-DAT3.1"
_END = b"#!END-HEADER\r\n"
_PACKET = struct.Struct("<hhiiiiii")
_POLARITY, _EVENT_BYTES = 1, 8


def read_aedat3(path: Path, sensor: Sensor) -> Recording:
    """Read the polarity events of a file.

    Packets of other types (frames, inertial, special events) are passed over, and events that their writer marked as
    invalid are left out, as the format asks of a reader. Times are sorted stably.

    Args:
        path: the file.
        sensor: the camera's size.

    Raises:
        ValueError: another format, cut off, or damaged; names the file.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        begins = data[: len(_MAGIC)].decode("ascii", "replace").split("\r")[0]
        raise ValueError(f"'{path}' begins with {begins!r}, not with {_MAGIC.decode()!r}: it is no AEDAT 3.1 file")
    at = data.find(_END)
    if at < 0:
        raise ValueError(f"'{path}' is cut off within its header; fetch or unpack it again")
    at += len(_END)
    words, times = [np.zeros(0, "<u4")], [np.zeros(0, np.int64)]
    while at < len(data):
        if at + _PACKET.size > len(data):
            raise ValueError(f"'{path}' is cut off within a packet's header at byte {at}; fetch or unpack it again")
        kind, _, size, _, overflows, capacity, number, _ = _PACKET.unpack_from(data, at)
        plausible = min(size, overflows) >= 0 and 0 <= number <= capacity
        if not plausible or (kind == _POLARITY and size != _EVENT_BYTES):
            raise ValueError(f"'{path}' is damaged: no packet begins at byte {at}; fetch or unpack it again")
        at += _PACKET.size
        if at + capacity * size > len(data):
            raise ValueError(
                f"'{path}' is cut off: the packet at byte {at - _PACKET.size} promises {capacity * size} bytes of "
                f"events and {len(data) - at} follow; fetch or unpack it again"
            )
        if kind == _POLARITY:
            pairs = np.frombuffer(data, "<u4", 2 * number, at).reshape(-1, 2)
            if np.any(pairs[:, 1] >> 31):
                raise ValueError(
                    f"'{path}' is damaged: the packet at byte {at - _PACKET.size} has a negative timestamp; "
                    "fetch it again"
                )
            words.append(pairs[:, 0])
            times.append(pairs[:, 1].astype(np.int64) | overflows << 31)
        at += capacity * size
    word, t = np.concatenate(words).astype(np.int64), np.concatenate(times)
    valid = word & 1 == 1
    word, t = word[valid], t[valid]
    try:
        return Recording.in_order(word >> 17 & 0x7FFF, word >> 2 & 0x7FFF, t, word >> 1 & 1, sensor)
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged or another camera's: {error}") from error
