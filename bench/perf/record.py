"""A run as one JSON file: where it was measured, with what, and every raw timing."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.checkpoint import write_atomically
from bench.errors import BenchError
from bench.perf.agreement import AttackAgreement, NetworkAgreement
from bench.perf.sample import Entry, Sample

SCHEMA = 1


@dataclass
class Section:
    """One part of a run.

    Attributes:
        about: its settings, as JSON values.
        entries: contestants with their timings.
    """

    about: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)


@dataclass
class Record:
    """A run.

    Attributes:
        setup: options and subject, as JSON values.
        provenance: see `bench.provenance`.
        releases: library -> installed release.
        missing: a line for each library that is not installed.
        networks, attacks: whether they compute the same thing.
        sections: by name, in the order in which they were measured.
        load: load averages over 1, 5 and 15 minutes, at the start and at the end.
        started: UTC.
        seconds: the whole run.
        interrupted: whether it was cut off.
    """

    setup: dict[str, Any]
    provenance: dict[str, Any]
    releases: dict[str, str]
    missing: list[str]
    networks: list[NetworkAgreement] = field(default_factory=list)
    attacks: list[AttackAgreement] = field(default_factory=list)
    sections: dict[str, Section] = field(default_factory=dict)
    load: list[list[float]] = field(default_factory=list)
    started: str = ""
    seconds: float = 0.0
    interrupted: bool = False

    def begin(self) -> None:
        """Note the time and the machine's load."""
        self.started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.load.append(load())

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; what is not a number is null."""
        values: dict[str, Any] = _finite({"schema": SCHEMA, "kind": "perf", **asdict(self)})
        return values

    @classmethod
    def from_json(cls, values: Any, where: str) -> "Record":
        """Read what `to_json` wrote.

        Raises:
            BenchError: it is something else.
        """
        if not isinstance(values, dict) or values.get("kind") != "perf":
            raise BenchError(f"'{where}' is not what bench perf writes")
        if values.get("schema") != SCHEMA:
            raise BenchError(f"'{where}' has layout {values.get('schema')}, this version reads {SCHEMA}")
        plain = {key: value for key, value in values.items() if key not in ("schema", "kind")}
        try:
            plain["networks"] = [NetworkAgreement(**_numbers(item)) for item in plain["networks"]]
            plain["attacks"] = [AttackAgreement(**item) for item in plain["attacks"]]
            plain["sections"] = {name: _section(item) for name, item in plain["sections"].items()}
            return cls(**plain)
        except (KeyError, TypeError) as error:
            raise BenchError(f"'{where}' is damaged: {error}") from error

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
    return Record.from_json(values, str(path))


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes; empty where the system has none."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return []


def _section(item: dict[str, Any]) -> Section:
    entries = [
        Entry(entry["name"], entry["state"], [Sample(**sample) for sample in entry["samples"]], entry["error"])
        for entry in item["entries"]
    ]
    return Section(item["about"], entries)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


def _numbers(item: dict[str, Any]) -> dict[str, Any]:
    return {key: float("nan") if value is None else value for key, value in item.items()}
