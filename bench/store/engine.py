"""Opening the database: pragmas, migrations, and errors in words."""

import shutil
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from bench.errors import BenchError
from bench.store.readonly import copied, is_writable
from bench.store.schema import HEAD

_BUSY_SECONDS = 60


def database_url(target: str | Path) -> str:
    """A SQLAlchemy URL from a URL or the path of an SQLite file."""
    text = str(target)
    return text if "://" in text else f"sqlite:///{text}"


def open_engine(target: str | Path, *, reading: bool = False) -> Engine:
    """Open a database and bring its tables up to date.

    Args:
        target: URL, or path of an SQLite file.
        reading: nothing will be written. An SQLite file that cannot be written, or whose folder cannot, is then read
            from a copy, which is brought up to date in its place; it goes when the engine is disposed of.

    Raises:
        BenchError: not writable, not a database, or made by a newer version.
    """
    url = database_url(target)
    path = None
    copy: Path | None = None
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        if reading and path.is_file() and not is_writable(path):
            path = copy = copied(path)
            url = database_url(copy)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = "it is a file, not a folder" if path.parent.is_file() else error.strerror
            raise BenchError(f"cannot create '{path.parent}': {why}; choose a folder with --results") from error
    try:
        engine = sa.create_engine(url)
    except (SQLAlchemyError, ImportError) as error:
        mend = "; write postgresql+psycopg://... and install snn-bench[postgres]" if "postgres" in url else ""
        raise BenchError(f"cannot use the store '{target}': {error}{mend}") from error
    if path is not None:
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_immediate)
    if copy is not None:
        # Also at the end of a program that never closes its store.
        remove = weakref.finalize(engine, shutil.rmtree, copy.parent, ignore_errors=True)
        sa.event.listen(engine, "engine_disposed", lambda _: remove())
    try:
        with readable_errors(str(target)):
            _migrate(engine, str(target))
    except BenchError:
        engine.dispose()
        raise
    return engine


@contextmanager
def readable_errors(target: str) -> Iterator[None]:
    """Turn the database's own errors into one line with the mend."""
    try:
        yield
    except (OperationalError, DatabaseError, sqlite3.Error) as error:
        text = str(getattr(error, "orig", error))
        hints = (
            ("readonly", "the file or its folder is read-only; choose another with --results or --store"),
            ("unable to open", "the file or its folder cannot be opened; choose another with --results or --store"),
            (
                "disk is full",
                "the disk is full; free some space and run the same command again, nothing stored is lost",
            ),
            ("locked", f"another process held it for over {_BUSY_SECONDS} s; run the same command again"),
            ("not a database", "it is not an SQLite database; move it away or choose another with --store"),
            ("malformed", "it is damaged; restore a copy, or move it away to start a new one"),
        )
        mend = next((mend for sign, mend in hints if sign in text), "")
        raise BenchError(f"store '{target}': {text}" + (f": {mend}" if mend else "")) from error


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # Transactions are begun by hand, see _begin_immediate.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A deferred transaction that has read and then wants to write fails at once with
    # "locked", whatever the timeout; taking the write lock first makes it wait instead.
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _migrate(engine: Engine, target: str) -> None:
    with engine.connect().execution_options(reading=True) as connection:
        version = _version(connection)
        others = sa.inspect(connection).get_table_names() if version is None else []
    if version == HEAD:
        return
    if others:
        raise BenchError(
            f"the store '{target}' is another program's database (it has a table '{others[0]}'); "
            "choose another with --store"
        )
    try:
        _upgrade(engine, target, version)
    except (OperationalError, sqlite3.OperationalError) as error:
        if version is None or "readonly" not in str(error):
            raise
        raise BenchError(
            f"the store '{target}' has the older schema {version} and cannot be brought up to date: the file or its "
            "folder is read-only; copy it to where it can be written and name the copy with --store"
        ) from error


def _upgrade(engine: Engine, target: str, version: str | None) -> None:
    if engine.dialect.name == "sqlite":
        # A property of the file, so it is set once, and only on a file of ours.
        with closing(engine.raw_connection()) as raw:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    # One connection, one transaction: of two processes that open a new file, the second finds the first's tables.
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise BenchError(
                f"the store '{target}' has schema {version}, which this version does not know; "
                "upgrade bench, or choose another store with --store"
            ) from error


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
