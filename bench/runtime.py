"""Preparing the process for speed on the machine at hand."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def share_cores() -> None:
    """Let idle worker threads sleep instead of spin; call before torch is imported.

    Spinning threads take the core that the thread they wait for needs: on two cores that
    another process also uses, training becomes ten times slower. A value the user set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def tune_allocator() -> None:
    """Keep glibc from returning every large temporary to the system (up to 2x on CPU at large batches).

    Does nothing elsewhere. Changes no result.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
