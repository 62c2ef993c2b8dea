"""What other tables for chunks would weigh and take, in SQLite: why the one there is stays."""

import hashlib
import math
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench.proposal import CHUNK
from bench.scale.fill import made_up
from bench.scale.record import Measure

_POOL = 64
_CELLS_AT_ONCE = 50
"""Chunks of so many cells come in turns, as from so many workers."""

LAYOUTS = {
    "as it is: text key, row": (
        "CREATE TABLE chunks (cell_key TEXT, start INTEGER, n INTEGER, outcome BLOB, PRIMARY KEY (cell_key, start))",
        False,
    ),
    "text key, without rowid": (
        "CREATE TABLE chunks (cell_key TEXT, start INTEGER, n INTEGER, outcome BLOB, PRIMARY KEY (cell_key, start)) "
        "WITHOUT ROWID",
        False,
    ),
    "whole number for the cell": (
        "CREATE TABLE chunks (cell_key INTEGER, start INTEGER, n INTEGER, outcome BLOB, PRIMARY KEY (cell_key, start))",
        True,
    ),
}
"""Name -> table, and whether cells are whole numbers."""

ONE_ROW = "one row a finished cell"


def measure_layouts(chunks: int, n: int) -> dict[str, Measure]:
    """Write the same chunks into each layout; with the bytes a chunk, and the time to read a cell's.

    Args:
        chunks: how many rows.
        n: images of a cell.
    """
    measures = {}
    for name, (table, numbered) in LAYOUTS.items():
        measures[name] = _measure(table, _rows(chunks, n, numbered), chunks, n)
    merged = made_up(n, 1, 0).pack()
    parts = math.ceil(n / CHUNK)
    rows = ((_key(number, False), 0, n, merged) for number in range(chunks // parts))
    measures[ONE_ROW] = _measure(LAYOUTS["as it is: text key, row"][0], rows, chunks // parts * parts, n)
    return measures


def _key(number: int, numbered: bool) -> str | int:
    return number if numbered else hashlib.sha256(str(number).encode()).hexdigest()


def _rows(chunks: int, n: int, numbered: bool) -> Iterator[tuple[str | int, int, int, bytes]]:
    pool = [made_up(CHUNK, 1, seed).pack() for seed in range(_POOL)]
    made = 0
    for first in range(0, chunks, _CELLS_AT_ONCE):
        for start in range(0, n, CHUNK):
            for number in range(first, first + _CELLS_AT_ONCE):
                if made == chunks:
                    return
                yield _key(number, numbered), start, CHUNK, pool[made % _POOL]
                made += 1


def _measure(table: str, rows: Iterator[tuple[str | int, int, int, bytes]], chunks: int, n: int) -> Measure:
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        file = Path(folder) / "layout.sqlite"
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(table)
            began, batch = time.perf_counter(), []
            keys = list[str | int]()
            for row in rows:
                batch.append(row)
                if row[1] == 0:
                    keys.append(row[0])
                if len(batch) == 1000:
                    connection.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?)", batch)
                    connection.commit()
                    batch = []
            connection.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?)", batch)
            connection.commit()
            seconds = time.perf_counter() - began
            sample = keys[:: max(1, len(keys) // 100)]
            began = time.perf_counter()
            for key in sample:
                connection.execute("SELECT outcome FROM chunks WHERE cell_key = ? ORDER BY start", (key,)).fetchall()
            read = (time.perf_counter() - began) / len(sample)
            pages = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")]
        return Measure([seconds], {"bytes a chunk": pages[0] * pages[1] / chunks, "read a cell": read})
