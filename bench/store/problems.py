"""A database's own errors in one line, with the mend."""

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from bench.errors import BenchError, ConnectionLostError, StoreError
from bench.secret import masked
from bench.store.readonly import is_full, is_writable
from bench.store.url import database_url, sqlite_file

BUSY_SECONDS = 60
"""For how long one writer waits for another."""

_FULL = "the disk is full; free some space and run the same command again, nothing stored is lost"
_READ_ONLY = "the file or its folder is read-only; choose another with --results or --store"
_SQLITE = (
    ("readonly", _READ_ONLY),
    ("unable to open", "the file or its folder cannot be opened; choose another with --results or --store"),
    ("disk is full", _FULL),
    ("locked", f"another process held it for over {BUSY_SECONDS} s; run the same command again"),
    ("disk I/O error", "its disk or network folder failed; run the same command again, nothing stored is lost"),
)
NO_VERSION = "no such table: alembic_version"
_NO_DATABASE = "file is not a database"
_DAMAGE = ("malformed", "not a database", "disk image", "corrupt", "unsupported file format", "Could not decode")

# By SQLSTATE, which is the same in every language. The longest that fits counts.
_MAY_ONLY_READ = (
    "this database user may only read; have the owner GRANT it more (or ALTER DATABASE ... OWNER TO it), or choose "
    "another store with --store"
)
_POSTGRES = {
    "25006": "it may only be read; name the primary server, or a user who may write, with --store",
    "42501": _MAY_ONLY_READ,
    "53100": "the server's disk is full; free some space there and run the same command again, nothing stored is lost",
    "55P03": f"another process held it for over {BUSY_SECONDS} s; run the same command again",
    "22001": "PostgreSQL keeps shorter names than this one; shorten it, or use an SQLite store",
    "22003": "PostgreSQL keeps smaller numbers than this one; choose a smaller one, or use an SQLite store",
    "XX001": "it is damaged; restore it from the server's backup",
    "XX002": "it is damaged; restore it from the server's backup",
}
_LOST = ("08", "57P", "53300", "40001", "40P01", "25P03")
_DATABASE = "make it with: createdb NAME (or CREATE DATABASE), or name another in the URL"
_LOGIN = "check user and password in the URL (or PGUSER, PGPASSWORD, ~/.pgpass); in it @ is written %40, / is %2F"
# Refusals to connect carry no SQLSTATE.
_REFUSED = (
    (
        ("password authentication failed", "no password supplied", "no pg_hba.conf entry", "authentication failed"),
        _LOGIN,
    ),
    (('role "',), _LOGIN),
    (("permission denied for database",), _MAY_ONLY_READ),
    (('database "',), _DATABASE),
    (("invalid port", "invalid connection option", "invalid integer value", "invalid sslmode"), "mend the URL"),
)
_UNREACHABLE = "is the server running, and are host and port in the URL right?"


@contextmanager
def readable_errors(target: str) -> Iterator[None]:
    """Turn the database's own errors into one line with the mend.

    Args:
        target: the store, as its user calls it.

    Raises:
        ConnectionLostError: trying again may help.
        StoreError: it will not.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error, PoolTimeoutError) as error:
        file = sqlite_file(target)
        raise (_sqlite_problem(target, file, error) if file else _server_problem(target, error)) from error
    except BenchError:
        raise
    except Exception as error:
        # Damage also looks like a value of the wrong type, wherever it is used first.
        if damage := damage_of(target):
            raise damage from error
        raise


def damaged(target: str, what: str) -> StoreError:
    """What to say of a store whose content is wrong: whether there is a backup, and how it is put in place."""
    from bench.store.backup import restorable

    file = sqlite_file(target)
    says = f"the store '{masked(target)}' is damaged ({what})"
    if file is None:
        return StoreError(f"{says}; restore the database from the server's backup")
    held = restorable(file)
    if isinstance(held, str) and what == _NO_DATABASE:
        return StoreError(
            f"store '{target}': {what}: it is not an SQLite database and {held}; move it away or choose another with "
            "--store"
        )
    if isinstance(held, str):
        return StoreError(
            f"{says} and {held}; move it away to start a new one (checkpoints are untouched, nothing is trained "
            "again), or choose another with --store"
        )
    return StoreError(f"{says}; {held} is good; put it in place with: {restore_command(target)}")


def damage_of(target: str, *, foreign: bool = False) -> StoreError | None:
    """The error of an SQLite store that is damaged; None if it is not, or cannot be read to tell.

    Args:
        target: the store, as its user calls it.
        foreign: it has tables and none of ours: it is ours only if it has a backup, or its pages are damaged.
    """
    from bench.store.backup import backup_of
    from bench.store.health import examine

    file = sqlite_file(target)
    if file is None or not file.is_file():
        return None
    try:
        found = examine(file, deep=not foreign)
    except OSError:
        return None
    if foreign and found == NO_VERSION and not backup_of(file).is_file():
        return None
    return damaged(target, found) if found else None


def restore_command(target: str) -> str:
    """What to type to put a store's backup in place."""
    file = sqlite_file(target)
    if file is None or file.name != "bench.sqlite" or "://" in target:
        return f"bench restore --store {shlex.quote(target)}"
    results = file.parent
    return "bench restore" if str(results) == "results" else f"bench restore --results {shlex.quote(str(results))}"


def _sqlite_problem(target: str, file: Path, error: Exception) -> StoreError:
    text = _line(getattr(error, "orig", None) or error)
    if any(sign in text for sign in _DAMAGE):
        return damaged(target, text)
    mend = next((mend for sign, mend in _SQLITE if sign in text), "")
    if "disk I/O error" in text and is_full(file.parent):
        mend = _FULL
    if "unable to open" in text and file.exists() and not is_writable(file):
        mend = _READ_ONLY
    if mend.startswith("the file or its folder") and not file.exists() and file.parent.exists():
        mend = "it is gone; run the same command again to start a new one, checkpoints that are left are used"
    if not mend and (damage := damage_of(target)):
        return damage
    return StoreError(f"store '{target}': {text}" + (f": {mend}" if mend else ""))


def _server_problem(target: str, error: Exception) -> StoreError:
    # The driver's own question; ours follows.
    text = _line(getattr(error, "orig", None) or error).partition(" Is the server running")[0]
    state = _state(error)
    says = f"store '{masked(target)}': {text}"
    if isinstance(error, PoolTimeoutError):
        return StoreError(f"store '{masked(target)}': all its connections are in use; run fewer workers")
    if getattr(error, "connection_invalidated", False) or state.startswith(_LOST):
        return ConnectionLostError(says)
    if state:
        mend = _POSTGRES.get(state, "")
        return StoreError(says + (f": {mend}" if mend else ""))
    if isinstance(error, OperationalError) and database_url(target).get_backend_name() == "postgresql":
        for signs, mend in _REFUSED:
            if any(sign in text for sign in signs):
                return StoreError(f"{says}: {mend}")
        return ConnectionLostError(f"{says}: {_UNREACHABLE}")
    return StoreError(says)


def _state(error: Exception) -> str:
    original: Any = getattr(error, "orig", error)
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""


def _line(error: Any) -> str:
    return masked_line(" ".join(str(error).split())).rstrip(".")


def masked_line(text: str) -> str:
    """A line of several words, none of which shows a password."""
    return " ".join(map(masked, text.split(" ")))
