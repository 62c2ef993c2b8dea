"""What a display may want to hear while a plan runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.plan import TrainJob
from bench.spec import CellSpec
from bench.store import CellRow
from bench.store.roster import WorkerRow
from bench.training import Progress


class Listener:
    """Told what a plan's workers do; does nothing by itself."""

    def training(self, job: TrainJob) -> Progress:
        return Progress()

    def waiting(self, job: TrainJob) -> None: ...

    def attacking(self, cells: Sequence[CellSpec], done: frozenset[int]) -> None: ...

    def attacked(self, images: int, robust: int) -> None: ...

    def finished(self, row: CellRow) -> None: ...

    def failed(self, what: str, error: str) -> None: ...

    def said(self, text: str) -> None:
        """Something that is no part of any one cell: a worker was killed, time is up."""

    def worker(self, number: int) -> "Listener":
        """Who is told what worker `number` of several does."""
        return self

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        """What workers do that cannot tell it themselves: those on other machines."""

    def progress(self, done: int, failed: int, seconds_left: float | None) -> None:
        """How far all of it is: cells done and failed by now, and how long the rest will take."""


@dataclass
class Report:
    """What came of a plan.

    Attributes:
        rows: of each finished cell, in the plan's order.
        failures: what failed, in words.
        computed: cells that were finished now.
        stopped: why not all was done, where a budget was spent or somebody asked for it; empty otherwise.
    """

    rows: list[CellRow] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    computed: int = 0
    stopped: str = ""
