"""AEDAT 2.0 files of a DVS128 camera, as CIFAR10-DVS (Li et al., Frontiers in Neuroscience 2017) comes.

A header of lines that begin with `#`, then pairs of big-endian 32-bit words: an address and microseconds. The address
of a DVS128 (iniVation's description of the format): bit 15 an external signal, bits 14 to 8 y, bits 7 to 1 x, bit 0 the
polarity.
"""

from pathlib import Path

import numpy as np

from events.recording import Recording, Sensor

DVS128 = Sensor(128, 128)

_MAGIC = b"#!AER-DAT2.0"
_EXTERNAL = 1 << 15


def read_cifar10_dvs(path: Path) -> Recording:
    """Read one recording of CIFAR10-DVS, upright and with 1 for ON.

    The files have the camera's axes and polarity the other way round. The convention is that of SpikingJelly, and so of
    most works: x = 127 - y', y = 127 - x', p = 1 - p', where ' marks what the file says. (Axes are exchanged, too: a
    reader that only mirrors them gives other images.)

    Times are unwrapped where the 32-bit counter overflows and then sorted stably: cameras of that age let single events
    come late. Events that mark an external signal are no pixel's and are left out.

    Raises:
        ValueError: another format, cut off, or addresses of another camera; names the file.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    body = data[_header(path, data) :]
    if len(body) % 8:
        raise ValueError(
            f"'{path}' is cut off: {len(body)} bytes of events are not a multiple of 8; fetch or unpack it again"
        )
    address, time = np.frombuffer(body, ">u4").astype(np.uint32).reshape(-1, 2).T
    if np.any(address >> 16):
        first = int(np.argmax(address >> 16 != 0))
        raise ValueError(
            f"'{path}' is damaged or not a DVS128's: event {first} has the address {address[first]:#010x}, "
            "and a DVS128 uses 16 bits; fetch it again"
        )
    pixel = address & _EXTERNAL == 0
    address, t = address[pixel].astype(np.int64), _unwrapped(time)[pixel]
    x, y, p = address >> 1 & 127, address >> 8 & 127, address & 1
    try:
        return Recording.in_order(127 - y, 127 - x, t, 1 - p, DVS128)
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged: {error}") from error


def _header(path: Path, data: bytes) -> int:
    """Where the events begin."""
    if not data.startswith(_MAGIC):
        begins = data[: len(_MAGIC)].decode("ascii", "replace").split("\r")[0]
        raise ValueError(f"'{path}' begins with {begins!r}, not with {_MAGIC.decode()!r}: it is no AEDAT 2.0 file")
    at = 0
    # Only a line feed ends a line: jAER's own header has a lone carriage return within one. An event cannot be taken
    # for a line, since the first byte of a DVS128's address is 0.
    while data[at : at + 1] == b"#":
        end = data.find(b"\n", at)
        if end < 0:
            raise ValueError(f"'{path}' is cut off within its header; fetch or unpack it again")
        at = end + 1
    return at


def _unwrapped(time: np.ndarray) -> np.ndarray:
    """Times of an unsigned 32-bit counter as int64: steps are taken modulo 2**32, so late events stay late."""
    if not len(time):
        return time.astype(np.int64)
    steps = np.diff(time).view(np.int32).astype(np.int64)
    return int(time[0]) + np.concatenate([[0], np.cumsum(steps)])
