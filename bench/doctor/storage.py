"""Whether results can be kept in the folder where they would go."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import sqlalchemy as sa
import torch

from bench.doctor.finding import Finding, UnsoundError, examine
from bench.store import Store

GROUP = "storage"


def storage_findings(results: Path) -> Iterator[Callable[[torch.device], Iterator[Finding]]]:
    """One function that tries a database in a temporary folder inside `results`; nothing of it stays."""
    yield lambda _: _findings(results)


def _findings(results: Path) -> Iterator[Finding]:
    for check, test in (("writes", _writes), ("write-ahead log", _write_ahead)):
        yield examine(GROUP, "database", check, partial(_in_folder, results, test))


def _in_folder(results: Path, test: Callable[[Path], str]) -> str:
    try:
        with _existing(results), tempfile.TemporaryDirectory(dir=results, prefix=".doctor-") as folder:
            return test(Path(folder) / "bench.sqlite")
    except OSError as error:
        raise UnsoundError(f"cannot write to '{results}': {error.strerror}; choose another with --results") from error


@contextmanager
def _existing(folder: Path) -> Iterator[None]:
    """The folder exists inside the block, and afterwards if it did before."""
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for parent in made:
            parent.rmdir()


def _writes(path: Path) -> str:
    store = Store(path)
    try:
        run = store.begin_run({"command": "bench doctor"})
    finally:
        store.close()
    again = Store(path)
    try:
        with again.engine.connect() as connection:
            found = connection.execute(sa.text("SELECT count(*) FROM runs")).scalar()
    finally:
        again.close()
    if found != 1:
        raise UnsoundError(f"run {run} was written, and {found} are there")
    return ""


def _write_ahead(path: Path) -> str:
    """A reader is not kept out by a writer, which network folders cannot do."""
    store = Store(path)
    try:
        with store.engine.connect() as connection:
            mode = connection.execute(sa.text("PRAGMA journal_mode")).scalar()
        if mode != "wal":
            raise UnsoundError(f"its journal mode is '{mode}', not 'wal': parallel runs would wait for each other")
        with store.engine.begin() as writer, store.engine.connect().execution_options(reading=True) as reader:
            writer.execute(sa.text("CREATE TABLE probe (x INTEGER)"))
            reader.execute(sa.text("SELECT count(*) FROM sqlite_master")).scalar()
    finally:
        store.close()
    return ""
