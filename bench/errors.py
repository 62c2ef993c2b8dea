"""Errors a user can act on: one line that says what is wrong and names the mend."""

import traceback
from pathlib import Path


class BenchError(Exception):
    """Something the user asked for cannot be done; the message is all they need to see."""


class StoreError(BenchError):
    """The store cannot be used any more: no other cell would fare better, so a run ends."""


class ConnectionLostError(StoreError):
    """A database server is away, or took back what was begun; the same transaction may succeed later."""


class ConflictingResultError(BenchError):
    """The same key was measured twice with different outcomes."""


def describe(error: BaseException) -> str:
    """Any exception on one line: `TypeError: what (file.py:12)`; a `BenchError` as it is."""
    if isinstance(error, BenchError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}{where}".split())
