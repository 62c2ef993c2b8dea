"""Opening the database: pragmas, locks and migrations."""

import shutil
import sqlite3
import weakref
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from bench.errors import BenchError, ConnectionLostError, StoreError
from bench.secret import masked
from bench.store import nonfinite
from bench.store.backup import backup_of, restorable
from bench.store.filesystem import network_file_system, warn_once
from bench.store.health import examine
from bench.store.problems import BUSY_SECONDS, damage_of, damaged, masked_line, readable_errors, restore_command
from bench.store.readonly import copied, needs_copy
from bench.store.retry import PATIENCE, persistent
from bench.store.schema import HEAD
from bench.store.url import connect_options, database_url, sqlite_file

_OPENING_PATIENCE = 3.0
"""Enough for a server that is just restarted, and not too long to wait for word of a wrong port."""

_SMALL = 128 << 20
"""Bytes of a store that is read through before it is written to: a tenth of a second."""

# Any number, as long as nobody else's is the same: "snnbench".
_LOCK = 0x736E6E62656E6368
_IDLE_SECONDS = 30


def open_engine(target: str | Path, *, reading: bool = False) -> Engine:
    """Open a database and bring its tables up to date.

    Args:
        target: URL, or path of an SQLite file.
        reading: nothing will be written. An SQLite file that cannot be written, whose folder cannot, or on a full
            disk, is then read from a copy, which is brought up to date in its place; it goes when the engine is
            disposed of.

    Raises:
        BenchError: not writable, not reachable, damaged, not a database, or made by a newer version.
    """
    url, name, path = database_url(target), masked(str(target)), sqlite_file(target)
    copy: Path | None = None
    if path is not None:
        _check_file(path, name)
        if reading and path.is_file() and needs_copy(path):
            copy = copied(path)
            url = database_url(copy)
        else:
            _make_folder(path.parent)
        if not reading and (kind := network_file_system(path)):
            warn_once(path, f"is on a network file system ({kind})")
    engine = _create(url, name)
    if engine.dialect.name == "sqlite":
        original = path if copy is None else None
        sa.event.listen(engine, "connect", lambda connection, record: _prepare_sqlite(connection, record, original))
        sa.event.listen(engine, "begin", lambda connection: _begin_immediate(connection, original, name))
    elif engine.dialect.name == "postgresql":
        sa.event.listen(engine, "begin", _lock_postgres)
        if engine.driver == "psycopg":
            sa.event.listen(engine, "connect", lambda connection, _: _read_times_as_utc(connection))
    if copy is not None:
        # Also at the end of a program that never closes its store.
        remove = weakref.finalize(engine, shutil.rmtree, copy.parent, ignore_errors=True)
        sa.event.listen(engine, "engine_disposed", lambda _: remove())
    try:
        _open(engine, name, reading=reading)
        if path is not None and not reading:
            _prepare_to_write(engine, path, name)
    except BenchError:
        engine.dispose()
        raise
    return engine


def options(engine: Engine, *, reading: bool) -> Mapping[str, Any]:
    """Execution options of a transaction: one that reads sees one state of the store, and keeps nobody waiting."""
    if reading and engine.dialect.name == "postgresql":
        return {"reading": True, "isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return {"reading": reading}


def _create(url: sa.URL, name: str) -> Engine:
    more: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        # A connection that died while nobody used it is replaced before it is used.
        more = {"pool_pre_ping": True, "json_serializer": nonfinite.dumps, "json_deserializer": nonfinite.loads}
    try:
        return sa.create_engine(url, connect_args=connect_options(url), **more)
    except (SQLAlchemyError, ImportError) as error:
        driver = isinstance(error, ImportError) and url.get_backend_name() == "postgresql"
        mend = "; install the driver with: pip install 'snn-bench[postgres]'" if driver else ""
        if not driver and not url.drivername.startswith(("postgresql", "sqlite")):
            mend = "; write the path of an SQLite file, or postgresql+psycopg://USER@HOST/DATABASE"
        text = masked_line(" ".join(str(error).split()))
        raise StoreError(f"cannot use the store '{name}': {text}{mend}") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file, not a folder" if folder.is_file() else error.strerror
        raise StoreError(f"cannot create '{folder}': {why}; choose a folder with --results") from error


def _check_file(path: Path, name: str) -> None:
    """Refuse to begin a new store where there was one: it would be empty, and take the old one's backup's place."""
    try:
        if path.exists() and path.stat().st_size:
            return
    except OSError:
        # Whoever opens it says why.
        return
    if backup_of(path).is_file() and not isinstance(held := restorable(path), str):
        what = "is empty" if path.exists() else "is gone"
        raise StoreError(
            f"the store '{name}' {what}, and {held} is beside it; put it in place with: {restore_command(name)} "
            "(or move the backup away to start a new store)"
        )


def _prepare_to_write(engine: Engine, path: Path, name: str) -> None:
    if path.stat().st_size <= _SMALL:
        try:
            found = examine(path, deep=False)
        except OSError:
            found = None
        if found:
            raise damaged(name, found)
    with readable_errors(name), closing(engine.raw_connection()) as raw:
        cursor = raw.cursor()
        (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            (mode,) = cursor.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        warn_once(path, f"cannot keep a write-ahead log there (its journal mode is '{mode}')")


def _prepare_sqlite(connection: Any, record: Any, path: Path | None) -> None:
    # Transactions are begun by hand, see _begin_immediate.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
    record.info["file"] = _identity(path)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Names a file for as long as it exists; other machines' files get new numbers now and then."""
    if path is None or not path.exists() or network_file_system(path):
        return None
    status = path.stat()
    return status.st_dev, status.st_ino


def _begin_immediate(connection: sa.Connection, path: Path | None, name: str) -> None:
    # A deferred transaction that has read and then wants to write fails at once with
    # "locked", whatever the timeout; taking the write lock first makes it wait instead.
    reading = connection.get_execution_options().get("reading")
    if not reading and path is not None:
        _check_still_there(connection, path, name)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _check_still_there(connection: sa.Connection, path: Path, name: str) -> None:
    """SQLite goes on writing to a file that was deleted, and all of it is lost at the end."""
    opened = connection.info.get("file")
    try:
        status = path.stat()
    except OSError as error:
        raise StoreError(
            f"the store '{name}' was deleted or moved while it was in use ({error.strerror}); nothing more is written. "
            "Put it back, or run the same command again to start a new one"
        ) from error
    if opened is not None and opened != (status.st_dev, status.st_ino):
        raise StoreError(
            f"the store '{name}' was replaced by another file while it was in use; nothing more is written. "
            "Run the same command again to go on with the file that is there now"
        )


def _read_times_as_utc(connection: Any) -> None:
    """Times without a zone, which are UTC, as SQLite gives them: the server's own zone is of no interest."""
    from psycopg.types.datetime import TimestamptzLoader

    class Loader(TimestamptzLoader):
        def load(self, data: Any) -> datetime:
            return super().load(data).astimezone(UTC).replace(tzinfo=None)

    connection.adapters.register_loader("timestamptz", Loader)


def _lock_postgres(connection: sa.Connection) -> None:
    """One writer at a time, as on SQLite, so that no two can deadlock, or both find a row missing.

    The lock goes with the transaction. Who stops in the middle of one, a laptop that is closed, is thrown out by the
    server before those that wait give up.
    """
    if not connection.get_execution_options().get("reading"):
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'; "
            f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'; "
            # A time without a zone is UTC.
            f"SET LOCAL TIME ZONE 'UTC'; "
            f"SELECT pg_advisory_xact_lock({_LOCK})"
        )


def _open(engine: Engine, name: str, *, reading: bool) -> None:
    def attempt() -> None:
        with readable_errors(name):
            _migrate(engine, name, reading=reading)

    try:
        persistent(attempt, name, _OPENING_PATIENCE)
    except ConnectionLostError as error:
        if not any(sign in str(error) for sign in ("starting up", "shutting down", "recovery")):
            raise
        persistent(attempt, name, PATIENCE)


def _migrate(engine: Engine, name: str, *, reading: bool) -> None:
    with engine.connect().execution_options(**options(engine, reading=True)) as connection:
        version = _version(connection)
        others = sa.inspect(connection).get_table_names() if version is None else []
    if version == HEAD:
        return
    # Damage makes a store look like another program's, or another version's.
    if (others or (version is not None and version > HEAD)) and (damage := damage_of(name, foreign=bool(others))):
        raise damage
    if others:
        raise BenchError(
            f"the store '{name}' is another program's database (it has a table '{others[0]}'); "
            "choose another with --store"
        )
    try:
        _upgrade(engine, name, version)
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        if version is None or not any(
            sign in str(error) for sign in ("readonly", "permission denied", "must be owner")
        ):
            raise
        raise StoreError(
            f"the store '{name}' has the older schema {version} and cannot be brought up to date: the file or its "
            "folder is read-only; copy it to where it can be written and name the copy with --store"
            if engine.dialect.name == "sqlite"
            else f"the store '{name}' has the older schema {version}, and this database user may not bring it up to "
            "date; open it once as its owner: bench ls runs --store URL"
        ) from error


def _upgrade(engine: Engine, name: str, version: str | None) -> None:
    if engine.dialect.name == "sqlite":
        # A property of the file, so it is set once, and only on a file of ours.
        with closing(engine.raw_connection()) as raw:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    # One connection, one transaction: of two processes that open a new database, the second finds the first's tables.
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise BenchError(
                f"the store '{name}' has schema {version}, which this version does not know; "
                "upgrade bench, or choose another store with --store"
            ) from error


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
