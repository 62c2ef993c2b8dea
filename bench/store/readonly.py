"""Reading a database that cannot be written."""

import os
import shutil
import tempfile
from pathlib import Path

from bench.errors import BenchError

_ROOM = 1 << 16


def is_writable(file: Path) -> bool:
    """Whether SQLite can open a file as it likes to: it writes beside a database even to read it."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def is_full(folder: Path) -> bool:
    """Whether there is no room for what SQLite writes beside a database that nobody has open."""
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False


def needs_copy(file: Path) -> bool:
    """Whether a database can only be read from a copy."""
    # While somebody has it open all is there already; that may be this process, which would lose its locks on a file
    # that it opens and closes to copy it.
    return not is_writable(file) or (is_full(file.parent) and not file.with_name(f"{file.name}-shm").exists())


def copied(file: Path) -> Path:
    """A copy of an SQLite database, with what its log holds, alone in a temporary folder for the caller to remove.

    Raises:
        BenchError: it cannot be read, or there is no room for a copy.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        for part in (file, file.with_name(f"{file.name}-wal")):
            if part.exists():
                shutil.copyfile(part, folder / part.name)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise BenchError(
            f"cannot read '{file}': {error.strerror or error}; it cannot be written, so it is read from a copy in "
            f"'{folder.parent}' (TMPDIR chooses another place)"
        ) from error
    return folder / file.name
