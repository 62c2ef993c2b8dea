"""Progress for people: bars on a terminal, plain lines elsewhere; always on stderr."""

import math
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from attacks.threat import format_eps
from bench.plan import Plan, TrainJob
from bench.report.text import counted
from bench.scheduler import Listener
from bench.spec import CellSpec
from bench.store import CellRow
from bench.training import EpochLog
from bench.training import Progress as TrainingListener


class Display(Listener):
    """Shows a running plan.

    Args:
        plan: what is about to run.
    """

    def __init__(self, plan: Plan) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False)
        if not self.console.is_terminal:
            self.console.width = 500
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.total, self.known = len(plan.cells), len(plan.stored)
        self.task: TaskID | None = None
        self.robust = self.images = 0

    def __enter__(self) -> "Display":
        if self.known:
            rest = "nothing to compute" if self.known == self.total else f"{self.total - self.known} to compute"
            self.console.print(f"{self.known} of {counted(self.total, 'cell')} in the store already, {rest}.")
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def training(self, job: TrainJob) -> TrainingListener:
        spec = job.spec
        epochs = spec.recipe.epochs
        held_out = "; accuracies on held-out training images" if spec.recipe.holdout else ""
        self.console.print(
            f"training {spec.defense_name} (seed {spec.seed}): "
            f"{spec.model.name} on {spec.dataset}, {counted(epochs, 'epoch')}{held_out}",
        )
        self._start(f"train {spec.defense_name}", epochs)
        return _TrainingProgress(self, epochs)

    def waiting(self, job: TrainJob) -> None:
        self.console.print(f"another run is training {job.spec.defense_name}; waiting for it")

    def attacking(self, cells: Sequence[CellSpec], done: frozenset[int]) -> None:
        from bench.proposal import CHUNK

        cell = cells[0]
        names = ", ".join(c.attack.name for c in cells)
        already = sum(min(CHUNK, cell.n - start) for start in done)
        resumed = f", {already} of {cell.n} images already done" if already else ""
        self.console.print(f"attacking {cell.defense_name} with {names} at eps {format_eps(cell.attack.eps)}{resumed}")
        self._start(f"{cell.defense_name} / {names}", cell.n, already)

    def attacked(self, images: int, robust: int) -> None:
        self.robust, self.images = self.robust + robust, self.images + images
        self.advance(images, f"robust so far {self.robust / self.images:.1%}")

    def finished(self, row: CellRow) -> None:
        self._stop()

    def failed(self, what: str, error: str) -> None:
        self._stop()
        self.console.print(f"failed {what}: {error}", style="red")

    def advance(self, amount: float, note: str) -> None:
        if self.task is not None:
            self.bars.update(self.task, advance=amount, note=note)

    def epoch_line(self, log: EpochLog, epochs: int) -> None:
        quick = "" if math.isnan(log.clean) else f"  clean {log.clean:5.1%}  pgd7 {log.robust:5.1%}"
        self.console.print(
            f"  epoch {log.epoch:>{len(str(epochs))}}/{epochs}  loss {log.loss:.3f}  penalty {log.penalty:.3f}{quick}"
            f"  {log.images_per_second:,.0f} images/s",
        )
        if log.epoch == epochs:
            self._stop()

    def _start(self, what: str, total: int, done: int = 0) -> None:
        self._stop()
        self.robust = self.images = 0
        self.task = self.bars.add_task(what, total=total, completed=done, note="")

    def _stop(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None


class _TrainingProgress(TrainingListener):
    def __init__(self, display: Display, epochs: int) -> None:
        self.display, self.epochs = display, epochs

    def resumed(self, epoch: int) -> None:
        self.display.console.print(f"  continuing after epoch {epoch}")
        self.display.advance(epoch, "")

    def batch(self, epoch: int, done: int, total: int) -> None:
        self.display.advance(1 / total, f"epoch {epoch}/{self.epochs}")

    def epoch(self, log: EpochLog) -> None:
        self.display.epoch_line(log, self.epochs)
