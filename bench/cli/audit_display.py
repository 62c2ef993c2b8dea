"""Progress of audits, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from attacks.threat import format_eps
from bench.audit.run import AuditListener
from bench.audit.spec import AuditSpec
from bench.cli.display import Display
from bench.plan import TrainJob


class AuditDisplay(Display, AuditListener):
    """Shows running audits: a bar with a step for each check."""

    _begun = False

    def auditing(self, job: TrainJob, spec: AuditSpec, checks: int) -> None:
        name = job.spec.defense_name
        self.console.print(f"auditing {name} (seed {job.spec.seed}) at eps {format_eps(spec.eps)}, {spec.n} images")
        self._start(f"audit {name}", checks)
        self._begun = False

    def checking(self, check: str) -> None:
        self.advance(int(self._begun), check)
        self._begun = True

    def audited(self) -> None:
        self._stop()


@contextmanager
def spinning() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done; gives the function to tell it by."""
    console = Console(stderr=True, highlight=False, markup=False)
    with console.status("") as status:
        yield status.update
