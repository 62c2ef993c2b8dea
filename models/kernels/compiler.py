"""Builds the C kernels with the compiler of the machine at hand, once, and keeps the result.

Nothing is compiled at installation: a machine without a compiler runs the torch operations, more slowly and with
the same results, and a machine with one uses all that its processor has.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("lif.c")
_WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
_FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", *_WIDE, "-fPIC", "-fopenmp"),
    # Every operation is rounded as written; what is relaxed are errno and traps, which keep loops from vectorising.
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
_SECONDS = 120
_CAPABILITIES = ("AVX2", "AVX512")
SWITCH = "BENCH_KERNELS"
"""Environment variable; `torch` runs the torch operations even where kernels could be had."""


_off: ContextVar[bool] = ContextVar("kernels switched off", default=False)


@contextmanager
def switched_off() -> Iterator[None]:
    """Inside the block no kernels are used, on whatever machine."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def wanted() -> bool:
    """Whether kernels may be used where they can be had."""
    return not _off.get() and os.environ.get(SWITCH, "") != "torch"


@cache
def compiled() -> tuple[ctypes.CDLL | None, str]:
    """The kernels, or None and the reason why there are none here."""
    if os.environ.get(SWITCH, "") == "torch":
        return None, f"{SWITCH}=torch"
    if not sys.platform.startswith("linux"):
        return None, f"the kernels are for Linux, not {sys.platform}"
    names = [os.environ.get("CC", ""), "gcc", "cc", "clang"]
    compiler = next((found for name in names if name and (found := shutil.which(name))), None)
    if compiler is None:
        return None, "no C compiler (gcc or clang) on the PATH"
    if torch.backends.cpu.get_cpu_capability() not in _CAPABILITIES:
        # Elsewhere torch's own loops round otherwise, and the kernels would not give their bits.
        return None, f"not tried with torch's {torch.backends.cpu.get_cpu_capability()} operations"
    try:
        return _loaded(compiler), ""
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return None, f"{compiler} could not build them: {_last_line(error)}"


def _loaded(compiler: str) -> ctypes.CDLL:
    """The kernels for this source, compiler and processor; built if they are not there yet.

    Raises:
        OSError: no folder to keep them in, or nothing that can be loaded.
        subprocess.SubprocessError: the compiler failed.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True)
    threads = _openmp()
    what = (_SOURCE.read_text(), version.stdout, *_FLAGS, threads, platform.machine(), _processor())
    name = f"lif-{hashlib.sha256(chr(0).join(what).encode()).hexdigest()[:24]}.so"
    problem: OSError = OSError("no folder to keep them in can be written")
    for folder in _folders():
        target = folder / name
        for _ in range(2):
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not target.exists():
                    _compile(compiler, target, threads)
                if not (_is_ours(folder) and _is_ours(target)):
                    raise OSError(f"'{folder}' can be written by others, so what lies there is not loaded")
                return ctypes.CDLL(str(target))
            except OSError as error:
                problem = error
                # Half a file, from a disk that was full: build it again, once.
                with suppress(OSError):
                    target.unlink(missing_ok=True)
    raise problem


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have put it there: code is loaded from it."""
    status = path.lstat()
    return status.st_uid == os.getuid() and not stat.S_ISLNK(status.st_mode) and not status.st_mode & 0o022


def _compile(compiler: str, target: Path, threads: str) -> None:
    # Compiled aside and renamed: another process never loads half a file. A symbol that is missing (clang's OpenMP in
    # gcc's library) must fail here and not where it is called.
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        compiled, built = Path(aside) / "lif.o", Path(aside) / target.name
        for command in (
            [compiler, *_FLAGS, "-c", str(_SOURCE), "-o", str(compiled)],
            [compiler, "-shared", "-Wl,-z,defs", str(compiled), "-o", str(built), threads or "-fopenmp", "-lm"],
        ):
            subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        built.chmod(0o700)
        with built.open("rb") as file:
            # On the disk before it has its name: a machine that loses power leaves no half library.
            os.fsync(file.fileno())
        built.replace(target)


def _openmp() -> str:
    """The OpenMP library that torch has loaded: with one of their own the kernels' threads would fight torch's."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        # A path may hold spaces.
        loaded = [fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6]
    except OSError:
        return ""
    return next((path for path in loaded if Path(path).name.startswith(("libgomp", "libiomp5"))), "")


def _folders() -> list[Path]:
    found = []
    with suppress(RuntimeError):
        # A user without a home, as in some containers.
        found.append(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "snn-bench")
    return [*found, Path(tempfile.gettempdir()) / f"snn-bench-{os.getuid()}"]


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model", "flags", "Features", "CPU")))


def _last_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    lines = [line for line in str(text).splitlines() if "error" in line] or str(text).splitlines() or ["unknown error"]
    return lines[0][:200]
