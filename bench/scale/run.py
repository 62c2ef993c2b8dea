"""Stage by stage: a larger plan, a fuller store, and everything measured again."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa
import torch

from bench.errors import BenchError
from bench.perf.record import load
from bench.provenance import code_version, device_name
from bench.scale.fill import check_synthetic, fill, is_left_out
from bench.scale.layouts import measure_layouts
from bench.scale.measure import bytes_of, measure_plan, measure_reading, measure_writing
from bench.scale.record import Measure, Record, Stage
from bench.scale.subject import size_of, write_images
from bench.scale.writers import measure_writers
from bench.spec import key_of
from bench.store import Store

WRITERS = (1, 8)
_OLD_INDICES = (
    "DROP INDEX ix_cells_done",
    "DROP INDEX ix_cells_created",
    "DROP INDEX ix_weights_sha256",
    "DROP INDEX ix_cells_table",
    "CREATE INDEX ix_cells_table ON cells (dataset, model, defense, attack)",
)
"""Back to what there was before migration 0005."""


def measure_growth(
    target: str,
    stages: Sequence[int],
    *,
    n: int,
    chunks_a_cell: float,
    command: str,
    empty: str | None = None,
    writers: Sequence[int] = WRITERS,
    old_indices: bool = False,
    keep: Callable[[Record], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Record:
    """Measure plans and stores of growing size.

    Args:
        target: an empty store, SQLite file or URL, that is filled.
        stages: numbers of cells.
        n: test images of every cell.
        chunks_a_cell: how many rows of outcomes are written for each cell; all would be n / 128.
        command: what was typed.
        empty: a second store of the same engine, to compare writes with; for SQLite a temporary one if not given.
        writers: how many processes write at once, at the last stage.
        old_indices: measure with those of before migration 0005, to see what the others are worth.
        keep: given the record after each stage.
        tell: told what is under way.

    Raises:
        BenchError: a store is not empty or cannot be used.
    """
    began = time.perf_counter()
    store = Store(target)
    check_synthetic(store)
    folder = Path(tempfile.mkdtemp(prefix="bench-scale-"))
    try:
        if empty is None and store.engine.dialect.name != "sqlite":
            raise BenchError("writes are compared with those into an empty store: name one with --empty URL")
        beside = Store(empty or str(folder / "empty.sqlite"))
        check_synthetic(beside)
        for opened in (store, beside) if old_indices else ():
            with opened.writing() as session:
                for statement in _OLD_INDICES:
                    session.execute(sa.text(statement))
        record = Record(
            {**code_version(), "engine": _engine(store), "chunks a cell": chunks_a_cell, "old indices": old_indices},
            device_name(torch.device("cpu")), command, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            load=[load()],
        )  # fmt: skip
        images = write_images(folder, n)
        before: frozenset[str] = frozenset()
        chunks = 0
        for cells in sorted(stages):
            size = size_of(cells, n)
            tell(f"planning {size.cells:,} cells")
            plan, measures = measure_plan(size, images)
            added = fill(store, plan, before, chunks_a_cell=chunks_a_cell, size=lambda: bytes_of(store), tell=tell)
            chunks += added.chunks
            measures["fill"] = Measure(
                [added.seconds], {"cells": added.cells, "chunks": added.chunks, "bytes": list(added.bytes)}
            )
            before = frozenset(key_of(cell) for cell in plan.cells)
            left_out = [cell for cell in plan.cells if is_left_out(key_of(cell))]
            tell("reading")
            measures |= measure_reading(plan, store, target)
            tell("writing")
            measures |= measure_writing(left_out, store, beside)
            stage = Stage(size.networks, size.attacks, n, size.cells, chunks, measures)
            record.stages.append(stage)
            if cells == max(stages):
                for count in (count for count in writers if count <= len(left_out)):
                    tell(f"{count} at once")
                    store.engine.dispose()
                    measures[f"{count} at once"] = measure_writers(target, left_out[:400], count)
            record.load = [record.load[0], load()]
            record.seconds = time.perf_counter() - began
            keep(record)
        beside.close()
    finally:
        store.close()
        shutil.rmtree(folder, ignore_errors=True)
    return record


def measure_tables(chunks: int, n: int, command: str) -> Record:
    """Measure other layouts of the table of chunks, see `bench.scale.layouts`.

    Args:
        chunks: rows of each.
        n: images of a cell.
        command: what was typed.
    """
    began = time.perf_counter()
    record = Record(
        {**code_version(), "engine": f"sqlite {sqlite3.sqlite_version}", "layouts": chunks},
        device_name(torch.device("cpu")), command, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), load=[load()],
    )  # fmt: skip
    record.stages.append(Stage(0, 0, n, 0, chunks, measure_layouts(chunks, n)))
    record.load.append(load())
    record.seconds = time.perf_counter() - began
    return record


def _engine(store: Store) -> str:
    info = store.engine.dialect.server_version_info
    with store.engine.connect():
        info = store.engine.dialect.server_version_info or info
    return f"{store.engine.dialect.name} {'.'.join(map(str, info or ()))}"
