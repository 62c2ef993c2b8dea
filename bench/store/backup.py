"""A second copy of an SQLite store beside it, and how it takes the store's place.

Nothing here deletes results: what is replaced by hand is moved aside, and a copy only replaces an older one once it was
read through and found whole.
"""

import os
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.errors import BenchError, describe
from bench.store.health import cells_in, examine

_EVERY = 3600.0
_SHARE = 0.01
"""Of the time since the last backup, what a backup may take."""
_BYTES_PER_SECOND = 40e6
"""Copied, and read through: counting every outcome again takes most of it."""
_SPARE = 1 << 20
_began = time.monotonic()
_tried: dict[Path, float] = {}


@dataclass(frozen=True)
class BackedUp:
    """What came of a backup.

    Attributes:
        file: where it is, or would be.
        cells: how many finished cells it holds; None if none was made.
        problem: why none was made, in one line; None also where another process is at it.
    """

    file: Path
    cells: int | None
    problem: str | None


@dataclass(frozen=True)
class Held:
    """A backup that was read through and is whole.

    Attributes:
        file: where.
        made: when, in local time.
        cells: how many finished cells it holds.
    """

    file: Path
    made: datetime
    cells: int

    def __str__(self) -> str:
        cells = f"{self.cells} finished cell{'s' * (self.cells != 1)}"
        return f"the backup of {self.made:%Y-%m-%d %H:%M} with {cells}"


@dataclass(frozen=True)
class Restored:
    """What `restore` did: the backup that is the store now, and where the damaged file went (None: there was none)."""

    backup: Held
    aside: Path | None


def backup_of(store: Path) -> Path:
    """Where the backup of a store is."""
    return store.with_name(f"{store.name}.backup")


def back_up_if_due(store: Path | None, *, finished: bool) -> str | None:
    """Make a backup if it is time for one. Meant to be called often: after each chunk, and at the end of a run.

    At the end of a run it is time; before, at most once an hour. Neither while it would take more than about 1% of the
    time since the last backup. Never raises.

    Args:
        store: the SQLite file (`Store.file`); nothing is done for None.
        finished: this is the end of a run that computed something.

    Returns:
        what the user should know, in one line: there is no new backup, and why. None if all is well.
    """
    try:
        if store is None or not store.is_file() or not _is_due(store, finished):
            return None
        _tried[store] = time.monotonic()
        return back_up(store).problem
    except OSError as error:
        return f"no backup of '{store}': {error.strerror or error}"


def back_up(store: Path) -> BackedUp:
    """Copy an SQLite store, as it is at one moment, to `NAME.backup` beside it. Writers are not held up.

    The copy is read through before it takes the previous one's place, so a damaged store never does. A previous one
    that holds more finished cells is not of this store, or of a better one: it is moved aside, `NAME.backup-DATE`.
    Never raises: a backup that fails must not fail a run.

    Args:
        store: the file.
    """
    from filelock import FileLock, Timeout

    backup = backup_of(store)
    part = store.with_name(f".{backup.name}.part")
    try:
        with FileLock(store.with_name(f".{backup.name}.lock"), timeout=0):
            try:
                return _back_up(store, backup, part)
            finally:
                part.unlink(missing_ok=True)
                part.with_name(f"{part.name}-journal").unlink(missing_ok=True)
    except Timeout:
        return BackedUp(backup, None, None)
    except Exception as error:
        text = error.strerror or str(error) if isinstance(error, OSError) else describe(error)
        return BackedUp(backup, None, f"no backup of '{store}': {text}; the one before, if any, is still there")


def restorable(store: Path) -> Held | str:
    """The backup of a store if it is whole; else what is wrong with it, as it continues "the store ... and"."""
    backup = backup_of(store)
    if not backup.is_file():
        return "has no backup"
    try:
        found = examine(backup)
        if found is None:
            return Held(backup, datetime.fromtimestamp(backup.stat().st_mtime).astimezone(), cells_in(backup))
    except (OSError, sqlite3.Error) as error:
        found = str(error)
    return f"its backup is damaged as well ({found})"


def restore(store: Path, *, force: bool = False) -> Restored:
    """Put the backup of a store in its place. What was there is moved aside with its log, and nothing is deleted.

    Args:
        store: the file; may be missing.
        force: even if the store is healthy.

    Raises:
        BenchError: there is no good backup, the store is healthy, or the folder cannot be written.
    """
    held = restorable(store)
    if isinstance(held, str):
        raise BenchError(
            f"nothing was restored: the store '{store}' {'' if held.startswith('has') else 'cannot be, '}{held}; "
            "move it away, and bench run starts a new one (checkpoints are untouched)"
        )
    try:
        if not force and store.is_file() and examine(store) is None:
            raise BenchError(
                f"the store '{store}' is healthy and holds {cells_in(store)} finished cells, its backup of "
                f"{held.made:%Y-%m-%d %H:%M} holds {held.cells}; nothing was changed. --force restores it all the same"
            )
        _require_room(store, held.file.stat().st_size)
        part = store.with_name(f".{store.name}.restoring")
        part.unlink(missing_ok=True)
        try:
            shutil.copyfile(held.file, part)
            with closing(sqlite3.connect(part)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            if found := examine(part, deep=False):
                raise BenchError(f"the copy of '{held.file}' is not what was written ({found}); nothing was changed")
            _flush(part)
            aside = _move_aside(store, "damaged")
            part.replace(store)
        finally:
            part.unlink(missing_ok=True)
        _flush(store.parent)
    except (OSError, sqlite3.Error) as error:
        raise BenchError(f"cannot restore '{store}': {getattr(error, 'strerror', None) or error}") from error
    return Restored(held, aside)


def _is_due(store: Path, finished: bool) -> bool:
    # Clocks jump: a backup from the future is as good as one that is old.
    ages = [time.monotonic() - _tried.get(store, _began)]
    try:
        age = time.time() - backup_of(store).stat().st_mtime
        ages.append(age if age >= 0 else float("inf"))
        since = ages[1] if finished else min(ages)
    except FileNotFoundError:
        since = float("inf") if finished else ages[0]
    return since * _SHARE >= _size(store) / _BYTES_PER_SECOND and (finished or since >= _EVERY)


def _back_up(store: Path, backup: Path, part: Path) -> BackedUp:
    _require_room(store, _size(store))
    part.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as source,
            closing(sqlite3.connect(part)) as target,
        ):
            source.backup(target)
            # One file, without a log beside it.
            target.execute("PRAGMA journal_mode = DELETE")
        found = examine(part)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not store.is_file():
            raise
        found = str(error)
        if "full" in found:
            raise OSError("the disk is full") from error
    if found:
        from bench.store.problems import damaged

        return BackedUp(backup, None, f"no new backup: {damaged(str(store), found)}")
    shutil.copymode(store, part)
    _flush(part)
    cells = cells_in(part)
    if _cells_or_none(backup) > cells:
        _move_aside(backup, "")
    part.replace(backup)
    _flush(backup.parent)
    return BackedUp(backup, cells, None)


def _cells_or_none(file: Path) -> int:
    try:
        return cells_in(file) if file.is_file() else 0
    except sqlite3.Error:
        return 0


def _size(store: Path) -> int:
    log = store.with_name(f"{store.name}-wal")
    return store.stat().st_size + (log.stat().st_size if log.exists() else 0)


def _require_room(store: Path, size: int) -> None:
    free = shutil.disk_usage(store.parent).free
    if free < size + _SPARE:
        raise BenchError(
            f"it takes {(size + _SPARE) / 1e6:.0f} MB in '{store.parent}', and {free / 1e6:.0f} MB are free"
        )


def _move_aside(file: Path, why: str) -> Path | None:
    """Rename a file and its log to a name that says when; a name that is taken gets a number."""
    stem = f"{file.name}{'.' * bool(why)}{why}-{datetime.now():%Y%m%d-%H%M%S}"
    aside, number = file.with_name(stem), 1
    while aside.exists():
        number += 1
        aside = file.with_name(f"{stem}-{number}")
    moved = None
    # The log first: beside another file it would be taken for that one's.
    for ending in ("-wal", "-shm", ""):
        part = file.with_name(file.name + ending)
        if part.exists():
            part.rename(aside.with_name(aside.name + ending))
            moved = aside
    return moved


def _flush(path: Path) -> None:
    """Have the disk hold what was written, where the system lets one say so (folders: not on Windows)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        if path.is_file():
            raise
    finally:
        os.close(descriptor)
