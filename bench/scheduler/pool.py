"""Worker processes on this machine: one for each GPU, or several that share the processor."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from bench.errors import BenchError, describe
from bench.plan import TrainJob
from bench.scheduler.dispatch import Dispatcher
from bench.scheduler.listener import Listener
from bench.scheduler.remote import Setup, open_worker
from bench.scheduler.task import Result, Task
from bench.spec import CellSpec
from bench.store import CellRow
from bench.store.process import BEAT, Watch
from bench.store.roster import Roster
from bench.training import EpochLog, Progress

_TICK = 0.2
_QUIET = 0.2
"""Seconds between two reports of a training's batches."""
_TERMINATED = 128 + signal.SIGTERM
_PATIENCE = 15.0
"""Seconds that workers have to drop what they do."""
_DEATHS = 5
"""So many workers in a row that are killed before they can begin are a fault of the machine."""
_LOOK = BEAT
"""Seconds between two looks at whether workers still beat."""

STOP = "stop"


@dataclass
class _Member:
    """One worker process as its parent sees it."""

    place: int
    device: str
    process: SpawnProcess
    link: Connection
    number: int = 0
    ready: bool = False
    task: Task | None = None
    training: Progress = field(default_factory=Progress)


def run_pool(dispatcher: Dispatcher, setup: Setup, devices: Sequence[str], roster: Roster, listener: Listener) -> None:
    """Do a plan's tasks in one process for each of `devices`.

    A worker that is killed is replaced, and its task given to another.

    Raises:
        BenchError: a worker cannot work at all: no store, no dataset, no device.
    """
    members = [_start(place, device, setup) for place, device in enumerate(devices)]
    deaths, told, looked, watch = 0, False, 0.0, Watch()
    try:
        while not dispatcher.over:
            for member in members:
                if member.ready and member.task is None and (task := dispatcher.next()) is not None:
                    member.task = task
                    _send(member, task)
            # Also while all are busy: what was begun goes no further than its chunk.
            if not told and dispatcher.check():
                told = True
                for member in members:
                    _send(member, STOP)
            wait([thing for member in members for thing in (member.link, member.process.sentinel)], _TICK)
            if time.monotonic() - looked > _LOOK:
                looked = time.monotonic()
                _kill_halted(members, roster, watch, setup.campaign)
            for place, member in enumerate(members):
                _hear(member, dispatcher, listener)
                deaths = 0 if member.ready else deaths
                if not member.process.is_alive():
                    _hear(member, dispatcher, listener)
                    # One that dies at a task is the task's fault, which is tried twice.
                    deaths += not member.ready
                    _bury(member, dispatcher, roster)
                    if deaths >= _DEATHS:
                        raise BenchError(
                            f"{deaths} workers were killed one after another ({_why(member)}); does the machine have "
                            "memory for so many? Try fewer --workers"
                        )
                    members[place] = _start(member.place, member.device, setup)
    finally:
        _end(members, roster)


def _start(place: int, device: str, setup: Setup) -> _Member:
    # A forked process would inherit torch's threads and the database's connections, neither of which survives that.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, setup, device), daemon=True, name=f"bench worker {place + 1}")
    with _deaf_to_ctrl_c():
        process.start()
    # With our copy closed, the end of the process is the end of the pipe.
    theirs.close()
    return _Member(place, device, process, ours)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started inside ignores Ctrl-C from its first instruction: the terminal sends it to every process of the
    command, and the parent decides what follows from it."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        # Not the main thread, which alone may say so.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _send(member: _Member, message: Any) -> None:
    # If it has ended, that is noticed where it is waited for.
    with suppress(OSError):
        member.link.send(message)


def _kill_halted(members: Sequence[_Member], roster: Roster, watch: Watch, campaign: int) -> None:
    """A worker that exists and does not beat, stopped or stuck in the kernel, would keep its task for ever."""
    rows = {row.id: row for row in roster.workers(campaign)}
    for member in members:
        row = rows.get(member.number)
        if row is not None and watch.is_lost("worker", row.id, row.process, row.beat):
            member.process.kill()


def _hear(member: _Member, dispatcher: Dispatcher, listener: Listener) -> None:
    """Take in what a worker told."""
    try:
        while member.link.poll():
            kind, *values = member.link.recv()
            if kind == "broken":
                raise BenchError(values[0])
            if kind == "ready":
                member.ready, member.number = True, values[0]
            elif kind == "result":
                assert member.task is not None
                task, member.task = member.task, None
                dispatcher.finish(task, values[0])
            elif kind == "spent":
                dispatcher.budget.spend(values[0])
            elif kind == "training":
                member.training = listener.worker(member.place).training(*values)
            elif kind in ("resumed", "batch", "epoch"):
                getattr(member.training, kind)(*values)
            else:
                getattr(listener.worker(member.place), kind)(*values)
    except (EOFError, OSError):
        pass


def _bury(member: _Member, dispatcher: Dispatcher, roster: Roster) -> None:
    member.process.join()
    member.link.close()
    if member.number:
        roster.leave(member.number)
    if member.task is not None:
        dispatcher.died(member.task, _why(member))


def _why(member: _Member) -> str:
    code = member.process.exitcode or 0
    if code >= 0:
        return "SIGTERM" if code == _TERMINATED else f"exit status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}: out of memory?" if name == "SIGKILL" else name


def _end(members: Sequence[_Member], roster: Roster) -> None:
    """Let idle workers go and make busy ones drop what they do."""
    for member in members:
        if member.task is None and member.ready:
            _send(member, None)
        elif member.process.is_alive():
            member.process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for member in members:
        member.process.join(max(0.0, deadline - time.monotonic()))
        if member.process.is_alive():
            member.process.kill()
            member.process.join()
        if member.number and member.process.exitcode:
            # If not, whoever comes next sees that the process is gone.
            with suppress(BenchError):
                roster.leave(member.number)


def _work(link: Connection, setup: Setup, device: str) -> None:
    """What a worker process does from its beginning to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What plug-ins and libraries print is not what the command answers.
    os.dup2(2, 1)
    _end_with_parent()
    from bench.scheduler.interrupt import interruptible

    try:
        with interruptible():
            _serve(link, setup, device)
    except KeyboardInterrupt:
        sys.exit(_TERMINATED)
    except (BrokenPipeError, EOFError):
        # The parent has ended, and with it the campaign.
        pass
    except BaseException as error:
        link.send(("broken", describe(error)))


def _serve(link: Connection, setup: Setup, device: str) -> None:
    from bench.scheduler.interrupt import interrupt

    stopped = False

    def stop() -> bool:
        nonlocal stopped
        while not stopped and link.poll():
            stopped = link.recv() == STOP
        return stopped

    worker = open_worker(
        setup, device, _Teller(link), stop=stop, spent=lambda forwards: link.send(("spent", forwards)),
        cancelled=interrupt,
    )  # fmt: skip
    try:
        link.send(("ready", worker.number))
        while (task := link.recv()) is not None:
            if task == STOP:
                stopped = True
            else:
                result: Result = worker.do(task)
                link.send(("result", result))
    finally:
        worker.end()


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on with work that nobody hands out any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="bench parent").start()


class _Teller(Listener):
    """Tells the parent what a worker does."""

    def __init__(self, link: Connection) -> None:
        self.link = link

    def training(self, job: TrainJob) -> Progress:
        self.link.send(("training", job))
        return _TrainingTeller(self.link)

    def waiting(self, job: TrainJob) -> None:
        self.link.send(("waiting", job))

    def attacking(self, cells: Sequence[CellSpec], done: frozenset[int]) -> None:
        self.link.send(("attacking", cells, done))

    def attacked(self, images: int, robust: int) -> None:
        self.link.send(("attacked", images, robust))

    def finished(self, row: CellRow) -> None:
        self.link.send(("finished", row))

    def failed(self, what: str, error: str) -> None:
        self.link.send(("failed", what, error))

    def said(self, text: str) -> None:
        self.link.send(("said", text))


class _TrainingTeller(Progress):
    def __init__(self, link: Connection) -> None:
        self.link, self.last = link, 0.0

    def resumed(self, epoch: int) -> None:
        self.link.send(("resumed", epoch))

    def batch(self, epoch: int, done: int, total: int) -> None:
        if time.monotonic() - self.last > _QUIET:
            self.last = time.monotonic()
            self.link.send(("batch", epoch, done, total))

    def epoch(self, log: EpochLog) -> None:
        self.link.send(("epoch", log))
