"""What plans and stores of one size cost, by the ways that the commands take."""

import contextlib
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.cli import app
from bench.costs.history import history
from bench.errors import describe
from bench.plan import Plan
from bench.proposal import CHUNK
from bench.scale.fill import SYNTHETIC, made_up
from bench.scale.record import Measure
from bench.scale.subject import Size, plan_of
from bench.selection import chosen_cells
from bench.spec import CellSpec, key_of
from bench.store import Store
from bench.store.schema import Cell, Chunk

_ROUNDS = 3
_WRITTEN_CELLS, _WRITTEN_CHUNKS = 30, 8

_BUDGET = "1/1000"

COMMANDS = {
    "table": ("table", "-d", "at", "-a", "pgd40", "--eps", _BUDGET),
    "table of 1 budget": ("table", "--eps", _BUDGET),
    "ls runs": ("ls", "runs"),
    "ls runs, chosen": ("ls", "runs", "-d", "at", "-a", "pgd40", "--eps", _BUDGET),
    "show": ("show", "KEY"),
}
"""What is timed of the command line, in this process: without the second that imports take."""


def timed(work: Callable[[], Any], rounds: int = _ROUNDS) -> Measure:
    """Do something some times over; what it says of itself is kept."""
    measure = Measure()
    try:
        for _ in range(rounds):
            began = time.perf_counter()
            said = work()
            measure.seconds.append(time.perf_counter() - began)
            measure.about = said if isinstance(said, dict) else measure.about
    except (Exception, SystemExit) as error:
        # An earlier version may not have such an option yet.
        measure.error = "refused" if isinstance(error, SystemExit) else describe(error)
    return measure


def measure_plan(size: Size, images: Path) -> tuple[Plan, dict[str, Measure]]:
    """Make the plan and all of its keys; with the memory that they take."""
    held = _resident()
    began = time.perf_counter()
    plan = plan_of(size, images)
    made = Measure([time.perf_counter() - began], {"bytes": _resident() - held})
    held, began = _resident(), time.perf_counter()
    keys = {key_of(cell) for cell in plan.cells}
    keyed = Measure([time.perf_counter() - began], {"bytes": _resident() - held, "different": len(keys)})
    return plan, {"plan": made, "keys": keyed}


def measure_reading(plan: Plan, store: Store, target: str) -> dict[str, Measure]:
    """Everything that reads a store."""

    def resume() -> dict[str, Any]:
        known = plan.known_to(store)
        return {"missing": len(known.missing)}

    measures = {"resume": timed(resume)}
    if store.engine.dialect.name == "sqlite":
        _forget(Path(target))
        measures["resume, cold"] = timed(resume, 1)
    measures["costs"] = timed(lambda: {"rows": len(history(store, str(SYNTHETIC["device"])).ran)})
    with store.reading() as session:
        key = session.scalars(sa.select(Chunk.cell_key).limit(1)).first()
    if key is not None:
        measures["outcomes of a cell"] = timed(lambda: store.outcome(key))
    measures["rows of 1 budget"] = timed(lambda: {"rows": len(chosen_cells(store, eps=_BUDGET))})
    store.engine.dispose()
    shown = key or key_of(plan.cells[0])
    for name, arguments in COMMANDS.items():
        typed = [shown[:12] if argument == "KEY" else argument for argument in arguments]
        measures[name] = timed(lambda typed=typed: _command([*typed, "--store", target]))  # type: ignore[misc]
    return measures


def measure_writing(cells: Sequence[CellSpec], full: Store, empty: Store) -> dict[str, Measure]:
    """Cells from beginning to end, in a full store and in an empty one by turns; what is written is taken out again.

    Args:
        cells: that the full store lacks.
        full, empty: of one engine.
    """
    names = ("begin a cell", "add a chunk", "finish a cell")
    measures = {f"{name}{where}": Measure() for name in names for where in ("", ", empty store")}
    cells = [replace(cell, n=_WRITTEN_CHUNKS * CHUNK) for cell in cells[:_WRITTEN_CELLS]]
    runs = {store: store.begin_run(SYNTHETIC) for store in (full, empty)}

    def timed_once(name: str, work: Callable[[], Any]) -> None:
        began = time.perf_counter()
        work()
        measures[name].seconds.append(time.perf_counter() - began)

    for cell in cells:
        empty.record_weights(cell.weights, cell.weights[-64:], {}, [], None, runs[empty])
        outcomes = [made_up(CHUNK, cell.draws, number) for number in range(_WRITTEN_CHUNKS)]
        for store, where in ((full, ""), (empty, ", empty store")):
            timed_once(names[0] + where, lambda: store.begin_cell(cell, runs[store]))  # noqa: B023
        for number, outcome in enumerate(outcomes):
            for store, where in ((full, ""), (empty, ", empty store")):
                timed_once(
                    names[1] + where,
                    lambda: store.add_chunks(number * CHUNK, {cell: outcome}, 10, 10, 1.0),  # noqa: B023
                )
        for store, where in ((full, ""), (empty, ", empty store")):
            timed_once(names[2] + where, lambda: store.finish_cell(cell))  # noqa: B023
    for store in (full, empty):
        remove(store, cells)
    return measures


def remove(store: Store, cells: Sequence[CellSpec]) -> None:
    """Take cells out again."""
    keys = [key_of(cell) for cell in cells]
    with store.writing() as session:
        session.execute(sa.delete(Chunk).where(Chunk.cell_key.in_(keys)))
        session.execute(sa.delete(Cell).where(Cell.key.in_(keys)))


def bytes_of(store: Store) -> int:
    """What a store takes up, with its indices and without what is free in it."""
    with store.reading() as session:
        if store.engine.dialect.name != "sqlite":
            tables = "pg_total_relation_size('cells') + pg_total_relation_size('chunks')"
            return int(session.scalar(sa.text(f"SELECT {tables}")) or 0)
        page, count, free = (
            int(session.scalar(sa.text(f"PRAGMA {name}")) or 0)
            for name in ("page_size", "page_count", "freelist_count")
        )
    return page * (count - free)


def _command(arguments: Sequence[str]) -> dict[str, Any]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        app(list(arguments), standalone_mode=False)
    return {"characters": len(said.getvalue())}


def _resident() -> int:
    """Memory of this process in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _forget(file: Path) -> None:
    """Let the system read a file from the disk again."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
