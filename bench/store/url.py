"""What a user calls a store, and what that means to the database's driver."""

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from bench.errors import StoreError
from bench.secret import masked

_PATIENCE = {
    # A server that went away without a word is noticed within a minute or so.
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "application_name": "bench",
}


def database_url(target: str | Path) -> sa.URL:
    """A SQLAlchemy URL from a URL or the path of an SQLite file.

    Raises:
        StoreError: it cannot be read; the message does not show a password.
    """
    text = str(target)
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
    except (SQLAlchemyError, ValueError):
        # Their message may quote a part of the password.
        raise StoreError(
            f"cannot read the URL '{masked(text)}'; it goes postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with %XX in place of special characters in the password (@ is %40, / is %2F)"
        ) from None
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url


def sqlite_file(target: str | Path) -> Path | None:
    """The file of an SQLite store; None of another database, or one in memory."""
    if "://" in (text := str(target)) and not text.startswith("sqlite"):
        return None
    url = database_url(target)
    database = url.database or ":memory:"
    return None if database == ":memory:" or database.startswith("file:") else Path(database)


def connect_options(url: sa.URL) -> dict[str, Any]:
    """What the driver is told in addition to the URL, which has the last word, as the environment has."""
    if url.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    environment = {"connect_timeout": "PGCONNECT_TIMEOUT", "application_name": "PGAPPNAME"}
    return {
        name: value
        for name, value in _PATIENCE.items()
        if name not in url.query and environment.get(name, "") not in os.environ
    }
