"""Which process on which machine, told so that another one can say whether it still lives."""

import math
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.errors import BenchError

GRACE = 30.0
"""Seconds without a beat after which a worker on another machine is given up. It beats every `BEAT` seconds."""

BEAT = 2.0
_BLINK = 5 * BEAT
_HALTED = 10


@dataclass(frozen=True)
class Process:
    """A process.

    Attributes:
        node: the machine since it was started, and its container.
        pid: of the process there.
        birth: when it began, in the kernel's own count; empty where that is not known. Numbers are used again.
    """

    node: str
    pid: int
    birth: str

    @staticmethod
    def own() -> "Process":
        """The calling process."""
        return Process.of(os.getpid())

    @staticmethod
    def of(pid: int) -> "Process":
        """A process of this machine."""
        return Process(_node(), pid, _birth(pid))

    def is_gone(self) -> bool:
        """Whether it surely lives no more; False where nothing can be said from here."""
        if self.node != _node():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return bool(self.birth) and _birth(self.pid) != self.birth


class Watch:
    """Says which workers are lost: their process is gone, or their beat stood still for too long.

    A beat is a number that grows. How long it stood still is measured here, by a clock that nobody can set: what the
    clocks of two machines say, and whether one of them jumps, changes nothing.

    Args:
        grace: seconds without a beat after which a worker is given up.
        clock: seconds that only grow.
    """

    def __init__(self, grace: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace = _grace() if grace is None else grace
        self.clock = clock
        self._seen: dict[tuple[str, int], tuple[int, float, float]] = {}

    def is_lost(self, what: str, number: int, process: Process, beat: int) -> bool:
        """Whether a worker or a campaign (`what`) of this number can be given up.

        Args:
            what, number: name it.
            process: that it is.
            beat: as it was read just now.
        """
        if process.is_gone():
            return True
        now = self.clock()
        last, since, looked = self._seen.get((what, number), (beat - 1, now, now))
        # While nobody looked, for the store was away or this process halted, nobody knows whether it beat.
        if beat != last or now - looked > _BLINK:
            since = now
        self._seen[what, number] = (beat, since, now)
        # One of this machine is there, and only slow or halted: give it more time.
        return now - since > self.grace * (_HALTED if process.node == _node() else 1)


def _grace() -> float:
    text = os.environ.get("BENCH_GRACE", str(GRACE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise BenchError(f"BENCH_GRACE must be a positive number of seconds, got '{text}'")
    return seconds


@cache
def _node() -> str:
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        try:
            parts.append(Path(path).read_text().strip()[:8])
            break
        except OSError:
            continue
    else:
        # Two machines may have one name, and their processes' numbers say nothing of each other: nobody is known here.
        parts.append(uuid.uuid4().hex[:8])
    # Two containers of one machine count their processes apart.
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(parts)


def _birth(pid: int) -> str:
    try:
        # The name may hold spaces and parentheses; what follows it does not.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended, and only its parent has not looked yet.
    return "" if fields[0] in "ZX" else fields[19]
