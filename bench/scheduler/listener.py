"""What a display may want to hear while a plan runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from bench.plan import TrainJob
from bench.spec import CellSpec
from bench.store import CellRow, Kind, Store
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
        failures: what failed, a line each.
        computed: cells that were finished now.
        stopped: why not all was done, where a budget was spent or somebody asked for it; empty otherwise.
        keys: of the plan's cells, in its order.
        store: where they are.
    """

    failures: list[str] = field(default_factory=list)
    computed: int = 0
    stopped: str = ""
    keys: Sequence[str] = ()
    store: Store | None = None

    def __add__(self, other: "Report") -> "Report":
        """Both together, of plans with one store."""
        return Report(
            [*self.failures, *other.failures], self.computed + other.computed, self.stopped or other.stopped,
            [*self.keys, *other.keys], self.store or other.store,
        )  # fmt: skip

    @cached_property
    def rows(self) -> list[CellRow]:
        """The cells that are finished, in the plan's order; loaded when they are asked for."""
        found = self.store.done(self.keys) if self.store else {}
        return [found[key] for key in self.keys if key in found]

    @cached_property
    def kinds(self) -> list[Kind]:
        """How many cells there are of each kind, where a plan is too large to look at every row."""
        return self.store.kinds(None, self.keys) if self.store else []
