"""The most memory that a piece of work needs beyond what the process held before."""

import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

_Result = TypeVar("_Result")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
HOW = {
    "hwm": "rise of the peak resident size (VmHWM, reset before the work) in a fresh process",
    "rusage": "rise of ru_maxrss in a fresh process; too low where starting the process took more",
    "cuda": "rise of torch's peak of allocated memory on the device",
}
"""How the figure was found."""


def peak_of(work: Callable[[], _Result], device: torch.device) -> tuple[_Result, int, str]:
    """Do the work, and say how many bytes it needed at most and how that was found (a key of `HOW`)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        return result, torch.cuda.max_memory_allocated(device) - before, "cuda"
    try:
        _CLEAR.write_text("5")
        before = _field("VmRSS")
        result = work()
        return result, max(_field("VmHWM") - before, 0), "hwm"
    except OSError:
        before = _maxrss()
        result = work()
        return result, _maxrss() - before, "rusage"


def _field(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"no {name} in {_STATUS}")
    return int(found[1]) * 1024


def _maxrss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
