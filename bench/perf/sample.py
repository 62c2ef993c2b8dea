"""One timed piece of work, and how many of them are taken in turn."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.errors import describe


@dataclass(frozen=True)
class Sample:
    """One timed run.

    Attributes:
        seconds: wall clock.
        work: what was done in it, in images or in images times gradient steps.
        forwards, backwards: passes of the network, in images, counted at the network; 0 where they are not counted.
        extra: whatever else the run gave, as JSON values.
    """

    seconds: float
    work: float
    forwards: int = 0
    backwards: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Work a second."""
        return self.work / self.seconds


@dataclass
class Entry:
    """A contestant in one section.

    Attributes:
        name: as tables call it.
        state: `tuned` or `default`, see `bench.perf.work.STATES`.
        samples: every timed run, in order.
        error: why there are no more.
    """

    name: str
    state: str
    samples: list[Sample] = field(default_factory=list)
    error: str = ""

    @property
    def rate(self) -> float:
        """Median work a second; nan without a sample."""
        return statistics.median(sample.rate for sample in self.samples) if self.samples else float("nan")

    def over(self, other: "Entry") -> float:
        """How many times faster than another: median of the ratios within a round; nan where one has no sample.

        Within a round both met the same machine. Where one has fewer runs, their medians are compared.
        """
        if not (self.samples and other.samples):
            return float("nan")
        if len(self.samples) != len(other.samples):
            return self.rate / other.rate
        return statistics.median(a.rate / b.rate for a, b in zip(self.samples, other.samples, strict=True))

    @property
    def spread(self) -> float:
        """Half the range of the rates over their median; nan with fewer than two samples."""
        if len(self.samples) < 2:
            return float("nan")
        rates = [sample.rate for sample in self.samples]
        return (max(rates) - min(rates)) / 2 / self.rate


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yield a function that tells the seconds since the block began."""
    began = time.perf_counter()
    yield lambda: time.perf_counter() - began


def take_turns(
    entries: Sequence[Entry],
    work: Sequence[Callable[[], Sample]],
    rounds: int,
    *,
    warm: Sequence[Callable[[], Sample]] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Time contestants round by round, each round beginning with another one, and fill their entries.

    A disturbance then falls on all, and the median leaves it out. Who fails is left out of later rounds.

    Args:
        entries: filled in place, so that an interruption keeps what was measured.
        work: one run of each.
        rounds: timed runs of each.
        warm: what each does once before, untimed; empty for nothing.
        tell: called with what begins.
    """
    for turn in range(-1 if warm else 0, rounds):
        for offset in range(len(entries)):
            number = (offset + max(turn, 0)) % len(entries)
            entry = entries[number]
            if entry.error:
                continue
            tell(f"{'warm-up' if turn < 0 else f'round {turn + 1}/{rounds}'}: {entry.name}, {entry.state}")
            try:
                sample = (warm if turn < 0 else work)[number]()
            except Exception as error:
                # Another library's code.
                entry.error = describe(error)
                continue
            if turn >= 0:
                entry.samples.append(sample)
