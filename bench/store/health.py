"""Whether an SQLite store is what was written: its pages, its tables, and the numbers that follow from outcomes."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.store.schema import HEAD, Base

_NEAR = 1e-6


def examine(file: Path, *, deep: bool = True) -> str | None:
    """What is wrong with an SQLite store, in a few words; None if nothing is.

    Every page and every index is read. That finds what a disk lost or mixed up, not a digit that changed; so each
    cell's key is compared with what it is the key of, and its rates are counted again from its outcomes, which carry a
    checksum.

    Args:
        file: of any schema; numbers are checked in one of the present schema only.
        deep: False only has SQLite look at its pages, which takes a tenth of the time.

    Raises:
        OSError: it cannot be read.
    """
    try:
        # Never with open(): closing the file would drop the locks that this process holds on it, and others would
        # then take away the log that this one writes to.
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            connection.execute("BEGIN")
            check = "integrity_check" if deep else "quick_check"
            (found,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
            if found != "ok":
                return " ".join(str(found).split())
            if broken := connection.execute("PRAGMA foreign_key_check").fetchone() if deep else None:
                return f"a row of '{broken[0]}' belongs to none of '{broken[2]}'"
            version = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            if deep and version == [(HEAD,)]:
                return next(_wrong_values(connection), None) or next(_wrong_cells(connection), None)
    except sqlite3.OperationalError as error:
        if "unable to open" in str(error) or "locked" in str(error):
            raise OSError(f"{error}") from error
        return str(error)
    except sqlite3.Error as error:
        return str(error)
    return None


def cells_in(file: Path) -> int:
    """How many finished cells an SQLite store holds."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
        return int(connection.execute("SELECT count(*) FROM cells WHERE status = 'done'").fetchone()[0])


def _wrong_values(connection: sqlite3.Connection) -> Iterator[str]:
    """Columns that hold what was never written to them."""
    for table in Base.metadata.sorted_tables:
        columns = list(table.columns)
        names = ", ".join(f'"{column.name}"' for column in columns)
        for row in connection.execute(f'SELECT {names} FROM "{table.name}"'):
            for column, value in zip(columns, row, strict=True):
                if not _fits(value, column.type.python_type, bool(column.nullable)):
                    yield f"in '{table.name}' a value of '{column.name}' cannot be read"


def _fits(value: Any, kind: type[Any], nullable: bool) -> bool:
    if value is None:
        return nullable
    if kind is dict:  # JSON
        try:
            json.loads(value)
        except (TypeError, ValueError):
            return False
        return True
    if kind is datetime:
        try:
            datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return False
        return True
    return isinstance(value, (int, float) if kind is float else kind)


def _wrong_cells(connection: sqlite3.Connection) -> Iterator[str]:
    """Cells whose key or numbers are not those of their contents."""
    import numpy as np

    from bench.canonical import canonical_json
    from bench.outcome import Outcome

    query = "SELECT key, spec, status, n, draws, clean_hits, robust_hits, robust_any_hits, worst_draw_hits FROM cells"
    for key, spec, status, n, draws, *hits in connection.execute(query):
        name = f"cell {str(key)[:12]}"
        if hashlib.sha256(canonical_json(json.loads(spec)).encode()).hexdigest() != key:
            yield f"{name} is not what its key says"
        total, counted = 0, np.zeros(4)
        chunks = connection.execute(
            'SELECT "start", n, outcome FROM chunks WHERE cell_key = ? ORDER BY "start"', (key,)
        )
        for start, length, packed in chunks:
            try:
                part = Outcome.unpack(packed)
            except ValueError as error:
                yield f"{name}: {error}"
                return
            if (part.n, part.clean.shape[1]) != (length, draws) or (status == "done" and start != total):
                yield f"{name} has other images than it should"
                return
            total += length
            worst = (part.clean & part.last).all(1).sum()
            counted += [part.clean.mean(1).sum(), part.robust_last.sum(), part.robust_any.sum(), worst]
        if status == "done" and (total != n or not np.allclose(counted, np.array(hits, float), rtol=0, atol=_NEAR * n)):
            yield f"{name} has other numbers than its outcomes"
