"""Where a result comes from: code, packages, machine, command line."""

import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.secret import masked

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "adversarial-robustness-toolbox", "pyautoattack")


def provenance(device: Any) -> dict[str, Any]:
    """Everything that a repeat of a result may need to know, as JSON values."""
    import torch

    from models.kernels import native

    return {
        **code_version(),
        "kernels": native.available(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "device": device_name(torch.device(device)),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": {name: getattr(torch.backends.cudnn, name) for name in ("allow_tf32", "deterministic", "benchmark")},
        "command": shlex.join(["bench", *map(masked, sys.argv[1:])]),
    }


@cache
def code_version() -> dict[str, Any]:
    """This project's version, and the commit and dirty flag when it runs from a git checkout."""
    from bench import __version__

    root = Path(__file__).resolve().parent.parent
    found: dict[str, Any] = {"version": __version__, "commit": None, "dirty": None}
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--", "bench", "attacks", "defenses", "models", "events")
        found.update(commit=commit, dirty=bool(status) if status is not None else None)
    return found


def _git(root: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


@cache
def package_versions() -> dict[str, str]:
    """The packages that a result may depend on, as far as they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def device_name(device: Any) -> str:
    """What a person calls the device: the GPU's or the processor's name."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        pass
    return f"cpu ({model or platform.machine()})"
