"""A run as one JSON file."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.checkpoint import write_atomically
from bench.errors import BenchError

SCHEMA = 1


@dataclass
class Measure:
    """One thing that was done, some times over.

    Attributes:
        seconds: wall clock of each time.
        about: what came of it, as JSON values.
        error: why it was not done.
    """

    seconds: list[float] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def least(self) -> float:
        """The time that other programs disturbed least; nan where there is none."""
        return min(self.seconds, default=float("nan"))

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")


@dataclass
class Stage:
    """One size.

    Attributes:
        networks, attacks, n, cells: of the plan.
        chunks: rows of outcomes in the store.
        measures: by name.
    """

    networks: int
    attacks: int
    n: int
    cells: int
    chunks: int = 0
    measures: dict[str, Measure] = field(default_factory=dict)


@dataclass
class Record:
    """A run.

    Attributes:
        setup: engine, settings and code, as JSON values.
        device: the processor.
        command: what was typed.
        started: UTC.
        stages: by size.
        load: load averages over 1, 5 and 15 minutes at the start and at the end.
        seconds: the whole run.
    """

    setup: dict[str, Any]
    device: str
    command: str
    started: str
    stages: list[Stage] = field(default_factory=list)
    load: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {"schema": SCHEMA, "kind": "scale", **asdict(self)}

    def write(self, path: Path) -> None:
        """Write the file."""
        write_atomically(path, (json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n").encode())


def read_record(path: Path) -> Record:
    """Read a file that a run wrote.

    Raises:
        BenchError: it cannot be read or is something else.
    """
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise BenchError(f"cannot read '{path}': {error.strerror}") from error
    except ValueError as error:
        raise BenchError(f"'{path}' is not JSON") from error
    if not isinstance(values, dict) or (values.get("kind"), values.get("schema")) != ("scale", SCHEMA):
        raise BenchError(f"'{path}' is not what this version of bench.scale writes")
    stages = [
        Stage(**{**stage, "measures": {name: Measure(**held) for name, held in stage["measures"].items()}})
        for stage in values["stages"]
    ]
    plain = {name: value for name, value in values.items() if name not in ("kind", "schema", "stages")}
    return Record(**plain, stages=stages)
