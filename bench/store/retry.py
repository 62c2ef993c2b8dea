"""A database server that is restarted meanwhile does not end a campaign."""

import random
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from bench.errors import ConnectionLostError

PATIENCE = 60.0
"""For how many seconds a lost connection is tried again."""
_FIRST, _LONGEST = 0.1, 5.0
_told: dict[str, float] = {}

S = TypeVar("S", bound=Any)
P = ParamSpec("P")
R = TypeVar("R")


def lasting(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A function on a store that is called again, for about a minute, while the connection is lost.

    It must be one transaction, or several, which may be done twice: the connection may be lost after the database kept
    what was written and before it said so.

    Args:
        method: takes the store (or what has its `target`) first.

    Raises:
        ConnectionLostError: the server did not come back.
    """

    @wraps(method)
    def called(store: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return persistent(lambda: method(store, *args, **kwargs), store.target, PATIENCE)

    return called


def persistent(call: Callable[[], R], target: str, patience: float) -> R:
    """Call until the connection lasts.

    Args:
        call: may be done twice.
        target: the store, as its user calls it.
        patience: for how many seconds; said on stderr where it is long.

    Raises:
        ConnectionLostError: the time is over.
    """
    began, delay = time.monotonic(), _FIRST
    while True:
        try:
            return call()
        except ConnectionLostError as error:
            left = began + patience - time.monotonic()
            if left <= 0:
                kept = f" (tried for {patience:.0f} s; nothing stored is lost, run the same command again)"
                raise ConnectionLostError(f"{error}{kept}") from error
            if patience >= PATIENCE and delay > 10 * _FIRST and began >= _told.get(target, began):
                # Once for all threads that wait for the same server.
                _told[target] = began + patience
                print(f"warning: {error}: trying again for up to {patience:.0f} s", file=sys.stderr)
        # Many workers lose it at once and should not all come back at once.
        time.sleep(min(delay * random.uniform(0.5, 1.0), max(left, 0.01)))
        delay = min(delay * 2, _LONGEST)
