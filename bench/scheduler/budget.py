"""How much a run may cost."""

import re
import time
from collections.abc import Callable

from bench.errors import BenchError
from bench.report.text import duration

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Budget:
    """What may be spent, and what was.

    Args:
        seconds: of wall-clock time from now; None is any.
        forwards: passes through networks in attacks and scoring, in images; None is any.
        clock: seconds that only grow.
    """

    def __init__(
        self, seconds: float | None = None, forwards: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds, self.forwards, self.clock = seconds, forwards, clock
        self.began, self.spent = clock(), 0

    def spend(self, forwards: int) -> None:
        """So many passes were made."""
        self.spent += forwards

    def over(self) -> str:
        """Why nothing new may begin, in words; empty while something may."""
        if self.seconds is not None and self.clock() - self.began >= self.seconds:
            return f"--max-time {duration(self.seconds)} is over"
        if self.forwards is not None and self.spent >= self.forwards:
            return f"--max-forwards {self.forwards:,} are spent"
        return ""


def parse_duration(text: str) -> float:
    """Seconds from what a person writes: `90`, `30s`, `15m`, `1h30m`, `2d`.

    Raises:
        BenchError: something else, or nothing at all.
    """
    parts = re.fullmatch(r"(?:\d+(?:\.\d+)?[smhd])+", text.strip().lower())
    try:
        pieces = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.lower()) if parts else [(text, "s")]
        seconds = sum(float(number) * _UNITS[unit] for number, unit in pieces)
    except ValueError:
        raise BenchError(f"'{text}' is not a time; write it as 90s, 15m, 1h30m or 2d") from None
    if not 0 < seconds < float("inf"):
        raise BenchError(f"a time must be positive, got '{text}'")
    return seconds
