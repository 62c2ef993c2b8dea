"""How many chunks a second several processes commit into one store."""

import multiprocessing
import time
from collections.abc import Sequence
from typing import Any

from bench.proposal import CHUNK
from bench.scale.fill import SYNTHETIC, made_up
from bench.scale.measure import remove
from bench.scale.record import Measure
from bench.spec import CellSpec
from bench.store import Store

_SECONDS = 5.0


def measure_writers(target: str, cells: Sequence[CellSpec], count: int, seconds: float = _SECONDS) -> Measure:
    """Chunks that `count` processes commit, each into cells of its own; what is written is taken out again.

    Args:
        target: of a store that lacks the cells and has their weights.
        cells: shared out among the writers.
        count: of writers.
        seconds: how long.
    """
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count), context.Queue()
    shares = [list(cells[number::count]) for number in range(count)]
    children = [
        context.Process(target=_write, args=(target, share, barrier, answers, seconds), daemon=True) for share in shares
    ]
    for child in children:
        child.start()
    told = [answers.get(timeout=60 + 10 * count + seconds) for _ in children]
    for child in children:
        child.join()
    store = Store(target)
    remove(store, cells)
    store.close()
    commits, longest = sum(number for number, _ in told), max(wait for _, wait in told)
    return Measure([seconds], {"writers": count, "commits": commits, "a second": commits / seconds, "longest": longest})


def _write(target: str, cells: Sequence[CellSpec], barrier: Any, answers: Any, seconds: float) -> None:
    store = Store(target)
    run = store.begin_run(SYNTHETIC)
    outcomes = [made_up(CHUNK, draws, 0) for draws in range(1, 6)]
    for cell in cells:
        store.begin_cell(cell, run)
    barrier.wait()
    begun, commits, longest = time.perf_counter(), 0, 0.0
    while time.perf_counter() - begun < seconds:
        cell = cells[commits % len(cells)]
        before = time.perf_counter()
        store.add_chunks(commits // len(cells) * CHUNK, {cell: outcomes[cell.draws - 1]}, 10, 10, 1.0)
        longest = max(longest, time.perf_counter() - before)
        commits += 1
    answers.put((commits, longest))
