"""Errors a user can act on: one line that says what is wrong and names the mend."""

import traceback
from pathlib import Path

NO_ROOM = "runs out of memory"
"""In the message of what cannot be given less at once."""


class BenchError(Exception):
    """Something the user asked for cannot be done; the message is all they need to see."""


class StorageError(BenchError):
    """Nothing more can be kept: no other cell would fare better, so a run ends."""


class StoreError(StorageError):
    """The store cannot be used any more."""


class ConnectionLostError(StoreError):
    """A database server is away, or took back what was begun; the same transaction may succeed later."""


class ConflictingResultError(BenchError):
    """The same key was measured twice with different outcomes."""


class LeaseLostError(BenchError):
    """A worker that was given up lives after all, and somebody else does its work."""


def describe(error: BaseException) -> str:
    """Any exception on one line: `TypeError: what (file.py:12)`; a `BenchError` as it is."""
    if isinstance(error, BenchError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}{where}".split())


def traceback_of(error: BaseException) -> str:
    """The whole traceback of an exception, with what it was raised from, for whoever has to mend it."""
    return "".join(traceback.format_exception(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation failed because it did not fit into the device's memory, or the machine's."""
    return _filled_memory(f"{type(error).__name__}: {error}")


def tells_of_memory(text: str) -> bool:
    """Whether an error that was kept in words, as `describe` puts it, says something of memory, and maybe nothing of
    what was computed."""
    return _filled_memory(text) or NO_ROOM in text


def _filled_memory(text: str) -> bool:
    # Torch has no error of its own for the processor's memory.
    return text.startswith(("OutOfMemoryError:", "MemoryError:")) or "can't allocate memory" in text
