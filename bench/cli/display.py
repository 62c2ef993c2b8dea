"""Progress for people: bars on a terminal, plain lines elsewhere; always on stderr."""

import math
import time
from collections.abc import Sequence
from fractions import Fraction
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from attacks.threat import format_eps
from bench.plan import Plan, TrainJob
from bench.report.text import counted, duration, percent
from bench.scheduler import Listener
from bench.spec import CellSpec
from bench.store import CellRow
from bench.store.roster import WorkerRow
from bench.training import EpochLog
from bench.training import Progress as TrainingListener

_SILENCE = 60.0
"""Seconds after which a log without bars says how far a long cell is."""


class Lane(Listener):
    """Shows what one worker does.

    Args:
        console: for lines that stay.
        bars: for what changes.
        prefix: begins each line, where there are several workers.
    """

    def __init__(self, console: Console, bars: Progress, prefix: str = "") -> None:
        self.console, self.bars, self.prefix = console, bars, prefix
        self.task: TaskID | None = None
        self.robust = self.images = 0
        self.told = 0.0

    def say(self, text: str, style: str | None = None) -> None:
        """A line that stays."""
        self.console.print(f"{self.prefix}{text}", style=style)

    def training(self, job: TrainJob) -> TrainingListener:
        spec = job.spec
        epochs = spec.recipe.epochs
        held_out = "; accuracies on held-out training images" if spec.recipe.holdout else ""
        self.say(
            f"training {spec.defense_name} (seed {spec.seed}): "
            f"{spec.model.name} on {spec.dataset}, {counted(epochs, 'epoch')}{held_out}",
        )
        self._start(f"train {spec.defense_name}", epochs)
        return _TrainingProgress(self, epochs)

    def waiting(self, job: TrainJob) -> None:
        self.say(f"another run is training {job.spec.defense_name}; waiting for it")

    def attacking(self, cells: Sequence[CellSpec], done: frozenset[int]) -> None:
        from bench.proposal import CHUNK

        cell = cells[0]
        names = ", ".join(c.attack.name for c in cells)
        already = sum(min(CHUNK, cell.n - start) for start in done)
        resumed = f", {already} of {cell.n} images already done" if already else ""
        self.say(f"attacking {cell.defense_name} with {names} at eps {format_eps(cell.attack.eps)}{resumed}")
        self._start(f"{cell.defense_name} / {names}", cell.n, already)

    def attacked(self, images: int, robust: int) -> None:
        self.robust, self.images = self.robust + robust, self.images + images
        self.advance(images, f"robust so far {self.robust / self.images:.1%}")

    def finished(self, row: CellRow) -> None:
        self._stop()
        if self.prefix and row.summary is not None:
            rate = row.summary.robust_any if row.stops_early else row.summary.robust
            took = duration(row.seconds)
            self.say(
                f"done {row.defense} / {row.attack} at eps {format_eps(Fraction(row.eps))}: {percent(rate)}, {took}"
            )

    def failed(self, what: str, error: str) -> None:
        self._stop()
        self.say(f"failed {what}: {error}", style="red")

    def said(self, text: str) -> None:
        self.say(text)

    def advance(self, amount: float, note: str) -> None:
        """So much more of the present task is done."""
        if self.task is not None:
            self.reach(self._present().completed + amount, note)

    def reach(self, completed: float, note: str) -> None:
        """So much of the present task is done."""
        if self.task is None:
            return
        self.bars.update(self.task, completed=completed, note=note)
        if self.bars.disable and time.monotonic() - self.told > _SILENCE:
            self.told = time.monotonic()
            task = self._present()
            left = f", about {duration(task.time_remaining)} left" if task.time_remaining else ""
            # The description begins with the prefix already.
            self.console.print(f"{task.description}: {round(task.completed, 1):g} of {task.total:g}, {note}{left}")

    def epoch_line(self, log: EpochLog, epochs: int) -> None:
        """One line of a training log."""
        quick = "" if math.isnan(log.clean) else f"  clean {log.clean:5.1%}  pgd7 {log.robust:5.1%}"
        self.say(
            f"  epoch {log.epoch:>{len(str(epochs))}}/{epochs}  loss {log.loss:.3f}  penalty {log.penalty:.3f}{quick}"
            f"  {log.images_per_second:,.0f} images/s",
        )
        if log.epoch == epochs:
            self._stop()

    def _present(self) -> Task:
        return next(task for task in self.bars.tasks if task.id == self.task)

    def _start(self, what: str, total: int, done: int = 0) -> None:
        self._stop()
        self.robust = self.images = 0
        self.told = time.monotonic()
        self.task = self.bars.add_task(f"{self.prefix}{what}", total=total, completed=done, note="")

    def _stop(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None


class Display(Lane):
    """Shows a running plan.

    Args:
        plan: what is about to run.
        workers: how many take part; each of several has a bar of its own.
    """

    def __init__(self, plan: Plan, workers: int = 1) -> None:
        console = Console(stderr=True, highlight=False, markup=False)
        if not console.is_terminal:
            console.width = 500
        bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        super().__init__(console, bars)
        self.total, self.known = len(plan.cells), len(plan.stored)
        self.lanes = {n: Lane(console, bars, f"[{n + 1}] ") for n in range(workers)} if workers > 1 else {}
        self.all: TaskID | None = None
        self.so_far = ""
        self.others: dict[int, TaskID] = {}

    def __enter__(self) -> "Display":
        if self.known:
            rest = "nothing to compute" if self.known == self.total else f"{self.total - self.known} to compute"
            self.console.print(f"{self.known} of {counted(self.total, 'cell')} in the store already, {rest}.")
        self.bars.start()
        if self.total - self.known > 1:
            self.all = self.bars.add_task("cells", total=self.total, completed=self.known, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def worker(self, number: int) -> Listener:
        return self.lanes.get(number, self)

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        busy = {row.id: row for row in rows if row.doing}
        for number in set(self.others) - set(busy):
            self.bars.remove_task(self.others.pop(number))
        for number, row in busy.items():
            if number not in self.others:
                self.others[number] = self.bars.add_task("", total=row.total, note="")
            what = f"[{row.process.node.partition('/')[0]}] {row.doing}"
            self.bars.update(
                self.others[number], description=what, completed=row.amount, total=row.total or 1, note=row.note
            )

    def progress(self, done: int, failed: int, seconds_left: float | None) -> None:
        left = f"about {duration(seconds_left)} left" if seconds_left else ""
        broken = f"{failed} failed" if failed else ""
        note = ", ".join(filter(None, (broken, left)))
        if self.all is not None:
            self.bars.update(self.all, completed=self.known + done, note=note)
        line = f"{self.known + done} of {counted(self.total, 'cell')} done" + (f", {note}" if note else "")
        if self.bars.disable and self.lanes and done and line.partition(",")[0] != self.so_far:
            self.so_far = line.partition(",")[0]
            self.console.print(line)


class _TrainingProgress(TrainingListener):
    def __init__(self, lane: Lane, epochs: int) -> None:
        self.lane, self.epochs = lane, epochs

    def resumed(self, epoch: int) -> None:
        self.lane.say(f"  continuing after epoch {epoch}")
        self.lane.advance(epoch, "")

    def batch(self, epoch: int, done: int, total: int) -> None:
        self.lane.reach(epoch - 1 + done / total, f"epoch {epoch}/{self.epochs}")

    def epoch(self, log: EpochLog) -> None:
        self.lane.epoch_line(log, self.epochs)
