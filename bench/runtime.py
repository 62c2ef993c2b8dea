"""The process and its device: speed, reproducible arithmetic, torch's global generators."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def share_cores() -> None:
    """Let waiting worker threads spin briefly, then sleep; call before torch is imported.

    By default they spin long, on the core that the thread they wait for needs if another process
    has the other one: training on busy cores then crawls. Not spinning at all makes every small
    operation wait for a wake-up on idle cores. What the user set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


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


def exact_arithmetic() -> None:
    """Full float32 and repeatable kernels on CUDA, whose defaults are TF32 convolutions and the fastest kernel."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextmanager
def isolated_generator(device: "torch.device", seed: int | None = None) -> Iterator[None]:
    """Inside the block the global generators (torch's, numpy's, Python's) may be used; afterwards they are as before.

    Args:
        device: its generator is kept too.
        seed: start the block from this 64-bit seed; None starts from the present state.
    """
    import random

    import numpy as np
    import torch

    kept = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if seed is not None:
                torch.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])


def process_age() -> float:
    """Seconds since this process began; where the system does not say, those that it computed."""
    import time

    try:
        began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - began
    except (OSError, ValueError, IndexError):
        return time.process_time()


def pick_device(name: str, threads: int | None) -> "torch.device":
    """Choose the device and prepare the process for it.

    Raises:
        BenchError: no such device here.
    """
    import torch

    tune_allocator()
    exact_arithmetic()
    if threads is not None:
        if threads < 1:
            raise BenchError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch lists every device type it ever had.
        reason = str(error).splitlines()[0].partition("Expected one of")[0].rstrip(" :") or "no such device"
        raise BenchError(f"device '{name}' cannot be used here: {reason}; try --device cpu") from error
    return device
