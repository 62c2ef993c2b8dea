"""Many commands of `bench`, without paying for each what starting Python costs.

A server imports what commands need, once, and forks a process for each: they share nothing, and may run beside each
other.
"""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

_NEEDED = (
    "bench.cli", "bench.comparison", "bench.figures.curves", "bench.frames", "bench.leaderboard.rank",
    "bench.leaderboard.site.build", "bench.report.comparison", "bench.report.edits", "bench.report.matrix",
    "bench.report.tables.fill", "bench.report.worst", "bench.selection", "bench.store", "bench.worst",
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

    def one(numbered: tuple[int, Sequence[str]]) -> Ran:
        number, command = numbered
        own = work / str(first + number)
        folder = own / "cwd"
        folder.mkdir(parents=True)
        (folder / "results").symlink_to(results.resolve(), target_is_directory=True)
        process = context.Process(target=_run, args=(tuple(command), str(own)))
        process.start()
        process.join()
        (folder / "results").unlink()
        return Ran(process.exitcode or 0, _said(own / "out"), _said(own / "err"), folder)

    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, enumerate(commands)))


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
