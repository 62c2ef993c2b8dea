"""Files that are never half written."""

import os
import tempfile
from pathlib import Path

from bench.errors import StorageError

# Temporary files are private; what they become should be as readable as any other new file.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old or the new content, never half.

    Raises:
        StorageError: the folder is not writable or the disk is full; an existing file stays as it was.
    """
    temporary = None
    try:
        if path.exists() and not path.is_file():
            # /dev/stdout, a pipe: written to, never replaced.
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_UMASK)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"cannot write '{path}': {error.strerror or error}") from error
    except BaseException:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise
