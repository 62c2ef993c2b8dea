"""Whether an SQLite store is what was written: its pages, its tables, and the numbers that follow from outcomes."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, LargeBinary, String
from sqlalchemy.types import TypeEngine

from bench.audit.finding import VERDICTS, Finding
from bench.canonical import canonical_json
from bench.store.schema import HEAD, Base

_NEAR = 1e-6
# A number that happens to be whole may be kept as an integer.
_HELD: tuple[tuple[type[TypeEngine[Any]], Any], ...] = (
    (Float, (int, float)), (Integer, int), (String, str), (LargeBinary, bytes)
)  # fmt: skip


def examine(file: Path, *, deep: bool = True) -> str | None:
    """What is wrong with an SQLite store, in a few words; None if nothing is.

    Every page and every index is read. That finds what a disk lost or mixed up, not a digit that changed; so each
    cell's key is compared with what it is the key of, and its rates are counted again from its outcomes, which carry a
    checksum. What neither covers can change unseen: times, costs, provenance, and the names of defense and dataset.

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
                return next(
                    chain(_wrong_values(connection), _wrong_findings(connection), _wrong_cells(connection)), None
                )
    except sqlite3.OperationalError as error:
        if "unable to open" in str(error) or "locked" in str(error):
            raise OSError(f"{error}") from error
        return str(error)
    except sqlite3.Error as error:
        return str(error)
    except UnicodeDecodeError:
        return "a text in it is none"
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
                if not _fits(value, column.type, bool(column.nullable)):
                    yield f"in '{table.name}' a value of '{column.name}' cannot be read"


def _fits(value: Any, kind: TypeEngine[Any], nullable: bool) -> bool:
    if value is None:
        return nullable
    try:
        if isinstance(kind, JSON):
            json.loads(value)
            return True
        if isinstance(kind, DateTime):
            datetime.fromisoformat(value)
            return True
    except (TypeError, ValueError):
        return False
    if isinstance(kind, Boolean):
        return value in (0, 1)
    return all(isinstance(value, held) for declared, held in _HELD if isinstance(kind, declared))


def _wrong_findings(connection: sqlite3.Connection) -> Iterator[str]:
    for table in ("cells", "audits"):
        for key, text in connection.execute(f"SELECT key, findings FROM {table} WHERE findings IS NOT NULL"):
            try:
                for data in json.loads(text) or ():
                    Finding.of_json(data)
            except (TypeError, ValueError, LookupError, AttributeError):
                yield f"in '{table}' the findings of {str(key)[:12]} cannot be read"


def _wrong_cells(connection: sqlite3.Connection) -> Iterator[str]:
    """Cells whose key or numbers are not those of their contents."""
    hits = "clean_hits, robust_hits, robust_any_hits, worst_draw_hits"
    query = f"SELECT key, spec, status, n, draws, model, norm, eps, verdict, flags, {hits} FROM cells"
    for key, text, status, n, draws, model, norm, eps, verdict, flags, *stored in connection.execute(query):
        name, spec, done = f"cell {str(key)[:12]}", json.loads(text), status == "done"
        if hashlib.sha256(canonical_json(spec).encode()).hexdigest() != key:
            yield f"{name} is not what its key says"
            return
        attack = spec["attack"]
        if (n, draws, model, norm, eps) != (
            spec["n"], spec["draws"], spec["model"]["name"], attack["norm"], attack["eps"]
        ):  # fmt: skip
            yield f"{name} is called otherwise than its key says"
        found = _counted(connection, key, draws, done=done)
        if isinstance(found, str):
            yield f"{name} {found}"
        elif done:
            length, numbers, flagged = found
            if verdict not in VERDICTS or length != n or (flags is not None and json.loads(flags) != flagged):
                yield f"{name} has another verdict or length than its outcomes"
            elif any(
                kept is None or abs(kept - number) > _NEAR * n for kept, number in zip(stored, numbers, strict=True)
            ):
                yield f"{name} has other numbers than its outcomes"


def _counted(
    connection: sqlite3.Connection, key: str, draws: int, *, done: bool
) -> tuple[int, list[float], dict[str, int]] | str:
    """A cell's images, hits and flags, counted again; or what is wrong with its outcomes."""
    from bench.outcome import Flag, Outcome

    total, hits, flags = 0, [0.0] * 4, dict[str, int]()
    chunks = 'SELECT "start", n, outcome FROM chunks WHERE cell_key = ? ORDER BY "start"'
    for start, length, packed in connection.execute(chunks, (key,)):
        try:
            part = Outcome.unpack(packed)
        except ValueError as error:
            return f"has a {error}"
        if (part.n, part.clean.shape[1]) != (length, draws) or (done and start != total):
            return "has other images than it should"
        total += length
        worst = (part.clean & part.last).all(1).sum()
        found = (part.clean.mean(1).sum(), part.robust_last.sum(), part.robust_any.sum(), worst)
        hits = [held + float(more) for held, more in zip(hits, found, strict=True)]
        for flag in Flag:
            if flag != Flag.UNWATCHED and (count := int((part.flags & flag != 0).sum())):
                flags[flag.name or ""] = flags.get(flag.name or "", 0) + count
    return total, hits, flags
