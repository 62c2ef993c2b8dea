"""How long several workers take for trainings and the attacks that wait for them."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """One network's work.

    Attributes:
        training: seconds until it can be attacked; 0 if it is trained.
        attacks: seconds of each attack run on it.
    """

    training: float
    attacks: tuple[float, ...]


def makespan(loads: Sequence[Load], workers: int) -> float:
    """Seconds until all is done, if a free worker always takes the cheapest thing that is ready.

    An attack is ready once its network is trained.

    Args:
        loads: of each network.
        workers: how many work at a time, at least 1.
    """
    if workers < 1:
        raise ValueError(f"there must be at least 1 worker, got {workers}")
    if workers == 1:
        return sum(load.training + sum(load.attacks) for load in loads)
    # (seconds, network that it trains or None). Ties go by the plan's order.
    ready: list[tuple[float, int, int | None]] = []
    for number, load in enumerate(loads):
        if load.training > 0:
            ready.append((load.training, number, number))
        else:
            ready += [(seconds, number, None) for seconds in load.attacks]
    heapq.heapify(ready)
    running: list[tuple[float, int, int | None]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            seconds, number, trains = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds, number, -1 if trains is None else trains))
        now, number, trains = heapq.heappop(running)
        if trains is not None and trains >= 0:
            for seconds in loads[trains].attacks:
                heapq.heappush(ready, (seconds, number, None))
    return now
