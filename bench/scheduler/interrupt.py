"""Stopping at once, from Ctrl-C, from a batch system's SIGTERM, or from another terminal."""

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Cancelled(KeyboardInterrupt):
    """Somebody cancelled the campaign with `bench cancel`."""


class Terminated(KeyboardInterrupt):
    """The process was sent SIGTERM."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside the block SIGTERM is an exception in the main thread, as Ctrl-C is, so that leases are given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_terminated(number: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def interrupt() -> None:
    """Raise `Terminated` in the main thread.

    Not by Ctrl-C's signal, which is ignored in what a script left in the background.
    """
    _thread.interrupt_main(signal.SIGTERM)
