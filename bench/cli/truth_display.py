"""Progress of `bench truth`; always on stderr."""

from fractions import Fraction
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from attacks.threat import format_eps
from bench.truth.compare import Listener
from bench.truth.exact import BROKEN, ROBUST, Verdict


class TruthDisplay(Listener):
    """One bar: the images of the network that is being enumerated."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task: TaskID | None = None
        self.found: dict[str, int] = {}

    def __enter__(self) -> "TruthDisplay":
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def truth(self, defense: str, eps: Fraction, n: int) -> None:
        self._stop()
        self.found = {}
        if not self.console.is_terminal:
            self.console.print(f"truth of {defense} at eps {format_eps(eps)}")
        self.task = self.bars.add_task(f"truth of {defense} at eps {format_eps(eps)}", total=n, note="")

    def decided(self, count: int, verdict: Verdict | None) -> None:
        if verdict is not None:
            self.found[verdict.status] = self.found.get(verdict.status, 0) + 1
        note = ", ".join(f"{self.found.get(status, 0)} {status}" for status in (ROBUST, BROKEN))
        if self.task is not None:
            self.bars.update(self.task, advance=count, note=note)

    def attacking(self, defense: str, eps: Fraction, names: str) -> None:
        self._stop()
        self.task = self.bars.add_task(f"{defense} / {names} at eps {format_eps(eps)}", total=None, note="")

    def complain(self, line: str) -> None:
        """Say what must not happen."""
        self.console.print(line, style="red", soft_wrap=True)

    def _stop(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None
