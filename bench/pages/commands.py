"""Many commands of `bench`, without paying for each what starting Python costs.

A server imports what commands need, once, and forks a process for each: they share nothing, and may run beside each
other.
"""

import contextlib
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.errors import BenchError

_NEEDED = (
    "bench.cli", "bench.comparison", "bench.figures.curves", "bench.frames", "bench.leaderboard.rank",
    "bench.leaderboard.site.build", "bench.report.comparison", "bench.report.edits", "bench.report.matrix",
    "bench.report.tables.fill", "bench.report.worst", "bench.selection", "bench.store", "bench.worst", "scipy.stats",
)  # fmt: skip
_AT_ONCE = 4
# What a terminal decides must not decide what stands on a page.
_TERMINAL = {"COLUMNS": "120", "LINES": "40", "NO_COLOR": "1", "TERM": "dumb"}


@dataclass(frozen=True)
class Ran:
    """How a command ended: its exit status, what it printed, what it complained about, the folder it ran in."""

    status: int
    out: str
    err: str
    folder: Path


def run_commands(commands: Sequence[Sequence[str]], results: Path, work: Path) -> list[Ran]:
    """Run commands beside each other, each in an empty folder where `results` is the folder of the store.

    Args:
        commands: of each what follows `bench`.
        results: where the store is, or will be.
        work: an existing folder for theirs.

    Raises:
        BenchError: the system has no processes that fork, or no links.
    """
    try:
        # A fork of this very process could inherit the locks of its threads.
        context = multiprocessing.get_context("forkserver")
    except ValueError:
        raise BenchError("pages are written on Linux or macOS: this system cannot fork processes") from None
    context.set_forkserver_preload(list(_NEEDED))
    first = len(list(work.iterdir()))
    own = [work / str(first + number) for number in range(len(commands))]
    ran, running, waiting = dict[int, Ran](), dict[int, BaseProcess](), deque(enumerate(commands))
    # All from one thread: two that look for the end of children at once can take each other's exit status.
    while waiting or running:
        while waiting and len(running) < min(_AT_ONCE, os.cpu_count() or 1):
            number, command = waiting.popleft()
            folder = own[number] / "cwd"
            folder.mkdir(parents=True)
            (folder / "results").symlink_to(results.resolve(), target_is_directory=True)
            running[number] = context.Process(target=_run, args=(tuple(command), str(own[number])))
            running[number].start()
        wait([process.sentinel for process in running.values()])
        for number, process in list(running.items()):
            if process.exitcode is not None:
                del running[number]
                (own[number] / "cwd" / "results").unlink()
                out, err = _said(own[number] / "out"), _said(own[number] / "err")
                ran[number] = Ran(process.exitcode, out, err, own[number] / "cwd")
    return [ran[number] for number in range(len(commands))]


def _said(file: Path) -> str:
    # A child that is killed early has not made its files.
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _run(command: tuple[str, ...], own: str) -> None:
    """In the child: the command, with what it prints in files."""
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(own) / name, os.O_WRONLY | os.O_CREAT, 0o666)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ.update(_TERMINAL)
    os.chdir(Path(own) / "cwd")
    from bench.cli import app

    try:
        app(command, prog_name="bench")
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
