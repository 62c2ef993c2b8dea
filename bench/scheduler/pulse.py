"""The beat of a worker or a campaign: it says every few seconds how far it is, and hears what it is asked."""

import threading
from collections.abc import Callable, Sequence

from bench.plan import TrainJob
from bench.scheduler.listener import Listener
from bench.spec import CellSpec
from bench.store import CellRow
from bench.store.process import BEAT
from bench.store.roster import CANCEL, STOP
from bench.training import EpochLog, Progress


class Pulse:
    """Calls a function every `BEAT` seconds, in a thread of its own, until it is ended.

    Args:
        beat: writes to the store, and returns what was asked: `STOP`, `CANCEL` or nothing.
        cancelled: called once, in that thread, when it was asked to cancel.
    """

    def __init__(self, beat: Callable[[], str], cancelled: Callable[[], None] = lambda: None) -> None:
        self._beat, self._cancelled = beat, cancelled
        self._ended = threading.Event()
        self.asked = ""
        self._thread = threading.Thread(target=self._run, daemon=True, name="bench pulse")
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                asked = self._beat()
            except Exception:
                # A store that cannot be written now may be the next time; if it stays so, the work itself says it. To
                # end here would be to be given up.
                continue
            if asked in (STOP, CANCEL) and asked != self.asked:
                self.asked = asked
                if asked == CANCEL:
                    self._cancelled()

    def end(self) -> None:
        """No more beats after this."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)


class Doing(Listener):
    """Passes on what a worker tells, and keeps of it what others may want to see at any moment.

    Attributes:
        doing, amount, total, note: see `bench.store.roster.WorkerRow`.

    Args:
        inner: told everything.
    """

    def __init__(self, inner: Listener) -> None:
        self.inner = inner
        self.rest()

    def rest(self) -> None:
        """Nothing is done at the moment."""
        self.doing, self.amount, self.total, self.note = "", 0.0, 0.0, ""
        self._robust = self._images = 0

    def training(self, job: TrainJob) -> Progress:
        self.rest()
        self.doing, self.total = f"training {job.spec.defense_name} (seed {job.spec.seed})", job.spec.recipe.epochs
        return _Training(self, self.inner.training(job))

    def waiting(self, job: TrainJob) -> None:
        self.doing = f"waiting for another run that trains {job.spec.defense_name}"
        self.inner.waiting(job)

    def attacking(self, cells: Sequence[CellSpec], done: frozenset[int]) -> None:
        from bench.proposal import CHUNK

        self.rest()
        names = ", ".join(cell.attack.name for cell in cells)
        self.doing, self.total = f"{cells[0].defense_name} / {names}", cells[0].n
        self.amount = sum(min(CHUNK, cells[0].n - start) for start in done)
        self.inner.attacking(cells, done)

    def attacked(self, images: int, robust: int) -> None:
        self._images, self._robust = self._images + images, self._robust + robust
        self.amount += images
        self.note = f"robust so far {self._robust / self._images:.1%}"
        self.inner.attacked(images, robust)

    def finished(self, row: CellRow) -> None:
        self.inner.finished(row)

    def failed(self, what: str, error: str) -> None:
        self.inner.failed(what, error)

    def said(self, text: str) -> None:
        self.inner.said(text)


class _Training(Progress):
    def __init__(self, doing: Doing, inner: Progress) -> None:
        self.state, self.inner = doing, inner

    def resumed(self, epoch: int) -> None:
        self.state.amount = epoch
        self.inner.resumed(epoch)

    def batch(self, epoch: int, done: int, total: int) -> None:
        self.state.amount = epoch - 1 + done / total
        self.inner.batch(epoch, done, total)

    def epoch(self, log: EpochLog) -> None:
        self.state.note = f"loss {log.loss:.3f}"
        self.inner.epoch(log)
