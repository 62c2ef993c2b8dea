"""What the store knows of time: attack runs and trainings of this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from bench.canonical import canonical_json
from bench.costs.passes import Settings, written
from bench.store import Store
from bench.store.schema import Cell, Run, Weights

_NETWORKS, _CELLS = 400, 3000
"""How far back to look; what is older says little about how fast the machine is today."""


@dataclass(frozen=True)
class Ran:
    """One attack run that was measured.

    Attributes:
        model: identity of the `ModelSpec`, as canonical JSON.
        spec: the same, as a mapping.
        weights: key of the network.
        way: of its training.
        threads: of the process; 0 if unknown.
        settings: of the attack.
        forwards, backwards, seconds: what it took, all cells together.
        overhead: seconds beyond those for each write into the store; None if that is not known.
        robust: share of the images that stood.
    """

    model: str
    spec: Mapping[str, Any] = field(repr=False)
    weights: str
    way: str
    threads: int
    settings: Settings
    forwards: float
    backwards: float
    seconds: float
    overhead: float | None
    robust: float


@dataclass(frozen=True)
class Learned:
    """One training that was measured.

    Attributes:
        model: as of `Ran`.
        way: what else of its specification decides how long it takes, its recipe's length left out.
        spec: identity of the `TrainSpec`.
        defense: what tables call it; empty if no attack was run on it.
        threads: as of `Ran`.
        seconds: of its epochs, without their log.
        elapsed: seconds from the beginning of the run until it was recorded; None if others were trained before it.
    """

    model: str
    way: str
    spec: Mapping[str, Any] = field(repr=False)
    defense: str
    threads: int
    seconds: float
    elapsed: float | None = None


@dataclass(frozen=True)
class History:
    """Attack runs and trainings, the latest first."""

    ran: tuple[Ran, ...] = ()
    learned: tuple[Learned, ...] = ()


def way_of_training(spec: Mapping[str, Any]) -> str:
    """What of a training's specification decides how long an image takes in it."""
    return canonical_json([spec.get("defense"), (spec.get("recipe") or {}).get("arithmetic", "fast")])


def history(store: Store, device: str, networks: Sequence[str] = ()) -> History:
    """What was measured on this kind of device, on given networks and on the latest ones.

    Args:
        store: where to look.
        device: its name as in the provenance.
        networks: keys of weights.
    """
    with store.reading() as session:
        threads = Run.provenance["threads"].as_integer()
        runs = {
            run: (count or 0, began)
            for run, count, began in session.execute(
                sa.select(Run.id, threads, Run.created).where(
                    Run.provenance["device"].as_string() == device,
                    # Another machine's results.
                    Run.provenance["imported"].as_string().is_(None),
                )
            )
        }
        columns = (Weights.key, Weights.spec, Weights.seconds, Weights.run_id, Weights.created)
        latest = sa.select(*columns).order_by(Weights.created.desc()).limit(_NETWORKS)
        known = {row.key: row for row in session.execute(latest)}
        rest = [key for key in dict.fromkeys(networks) if key not in known][:_NETWORKS]
        known |= {row.key: row for row in session.execute(sa.select(*columns).where(Weights.key.in_(rest)))}
        cells = sa.select(
            Cell.run_id, Cell.weights_key, Cell.spec, Cell.forwards, Cell.backwards, Cell.seconds, Cell.n,
            Cell.robust_hits, Cell.created, Cell.updated, Cell.defense,
        )  # fmt: skip
        cells = cells.where(Cell.weights_key.in_(list(known)), Cell.status == "done", Cell.seconds > 0)
        rows = session.execute(cells.order_by(Cell.updated.desc()).limit(_CELLS)).all()
    ways = {key: way_of_training(row.spec) for key, row in known.items()}
    named = {row.weights_key: row.defense for row in rows}
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        if row.run_id in runs:
            # What one attack run took is divided evenly among the cells that it served.
            attack = {name: value for name, value in row.spec["attack"].items() if name != "steps"}
            same = (row.run_id, row.weights_key, row.seconds, row.forwards, row.n, canonical_json(attack))
            groups.setdefault(same, []).append(row)
    trained = {
        key: (ended - runs[run][1]).total_seconds()
        for key, spec, seconds, run, ended in known.values()
        # A run that has lasted for less found the network trained.
        if run in runs and seconds and "recipe" in spec and (ended - runs[run][1]).total_seconds() >= seconds
    }
    first = dict[int, str]()
    for key in sorted(trained, key=trained.__getitem__):
        first.setdefault(known[key].run_id, key)
    return History(
        tuple(_ran(group, runs, ways) for group in groups.values()),
        tuple(
            Learned(
                canonical_json(row.spec["model"]), ways[key], row.spec, named.get(key, ""), runs[row.run_id][0],
                row.seconds, trained[key] if first[row.run_id] == key else None,
            )
            for key, row in known.items() if key in trained
        ),
    )  # fmt: skip


def _ran(cells: Sequence[Any], runs: Mapping[int, tuple[int, datetime]], ways: Mapping[str, str]) -> Ran:
    last = max(cells, key=lambda row: row.spec["attack"]["steps"])
    count, spec, attack = len(cells), last.spec, last.spec["attack"]
    params = attack["params"]
    settings = Settings(
        attack["family"], attack["surrogate"], attack.get("arithmetic", "fast"),
        any(name == "early_stop" and value for name, value in params),
        tuple(sorted(row.spec["attack"]["steps"] for row in cells)), attack["restarts"], attack.get("eot", 1), last.n,
        spec["draws"], float(Fraction(attack["eps"])), attack["norm"], written(params),
    )  # fmt: skip
    threads, began = runs[last.run_id]
    seconds = last.seconds * count
    # A cell that was begun by an earlier run says nothing of this one's time.
    created, updated = min(row.created for row in cells), max(row.updated for row in cells)
    writes = 2 * count - (-last.n // 128)
    overhead = (updated - created).total_seconds() - seconds if created >= began else -1.0
    return Ran(
        canonical_json(spec["model"]), spec["model"], last.weights_key, ways[last.weights_key], threads, settings,
        last.forwards * count, last.backwards * count, seconds, overhead / writes if overhead >= 0 else None,
        last.robust_hits / last.n,
    )  # fmt: skip
