"""Why something failed: a cell, or a training before there was a cell."""

from typing import Any

from bench.report.text import make_console
from bench.store.roster import FailureRow


def print_failure(failure: FailureRow) -> None:
    """What failed, when, and the whole traceback."""
    console = make_console()
    console.print(f"{failure.what} failed at {failure.created.isoformat(timespec='seconds')}:", soft_wrap=True)
    console.print(failure.error, soft_wrap=True)
    if failure.traceback:
        console.print(failure.traceback.rstrip(), soft_wrap=True)
    console.print("The command that ran it tries it again.")


def failure_json(failure: FailureRow) -> dict[str, Any]:
    """The same for programs."""
    return {
        "key": failure.key,
        "what": failure.what,
        "error": failure.error,
        "traceback": failure.traceback,
        "created": failure.created.isoformat(),
    }
