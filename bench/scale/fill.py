"""A synthetic store: the rows that running a plan would leave, with outcomes that nobody measured."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa

from bench.audit.cell import judge_cell
from bench.audit.finding import Finding
from bench.audit.join import hash_of_model
from bench.audit.spec import AUDIT_VERSION
from bench.errors import BenchError
from bench.outcome import Outcome
from bench.plan import Plan
from bench.proposal import CHUNK
from bench.scale.subject import NAME
from bench.spec import AttackSpec, CellSpec, ModelSpec, identity_of, key_of
from bench.store import Store
from bench.store.schema import Audit, Cell, Chunk, Weights, now

SYNTHETIC = {"synthetic": True, "version": "synthetic", "command": "python -m bench.scale", "device": "synthetic"}
"""The provenance of what nobody measured."""

_BATCH = 10_000
_POOL = 64
_RUNS = 20

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Added:
    """What one stage wrote.

    Attributes:
        cells, chunks: rows.
        seconds: that they took.
        bytes: of the store before, after the cells and after the chunks.
    """

    cells: int
    chunks: int
    seconds: float
    bytes: tuple[int, int, int]


def check_synthetic(store: Store) -> None:
    """Refuse a store that somebody may need.

    Raises:
        BenchError: it holds something.
    """
    with store.reading() as session:
        if session.scalar(sa.select(Weights.key).limit(1)) is not None:
            raise BenchError(f"the store '{store.target}' is not empty; synthetic rows go into one of their own")


def is_left_out(key: str) -> bool:
    """Whether a cell is one of the hundredth of a plan that is missing in the store."""
    return int(key[:8], 16) % 100 == 0


def fill(
    store: Store,
    plan: Plan,
    before: frozenset[str],
    *,
    chunks_a_cell: float,
    size: Callable[[], int],
    tell: Callable[[str], None] = lambda _: None,
) -> Added:
    """Write the cells of a plan as finished, all but a hundredth, and the outcomes of some of them.

    Args:
        store: to write into.
        plan: see `bench.scale.subject`.
        before: keys of the smaller plan that was written before.
        chunks_a_cell: rows of outcomes for each cell; whole cells get theirs until there are so many.
        size: bytes of the store.
        tell: told what is under way.
    """
    new = [cell for cell in plan.cells if key_of(cell) not in before and not is_left_out(key_of(cell))]
    began, empty = time.perf_counter(), size()
    runs = [store.begin_run(SYNTHETIC) for _ in range(_RUNS)]
    with store.engine.begin() as connection:
        known = set(connection.scalars(sa.select(Weights.key)))
        jobs = [job for job in plan.jobs if job.weights_key not in known]
        if jobs:
            connection.execute(sa.insert(Weights), [_weights(job, runs[0]) for job in jobs])
            connection.execute(sa.insert(Audit), [_audit(job, runs[0]) for job in jobs[::5]])
    written = 0
    for rows in _batches(_cells(new, runs)):
        with store.engine.begin() as connection:
            connection.execute(sa.insert(Cell), rows)
        written += len(rows)
        if written % 100_000 == 0:
            tell(f"{written:,} cells written")
    between, chunks = size(), 0
    for rows in _batches(_chunks(new, chunks_a_cell)):
        with store.engine.begin() as connection:
            connection.execute(sa.insert(Chunk), rows)
        chunks += len(rows)
        if chunks % 100_000 == 0:
            tell(f"{chunks:,} chunks written")
    return Added(written, chunks, time.perf_counter() - began, (empty, between, size()))


def made_up(n: int, draws: int, seed: int) -> Outcome:
    """Outcomes that look like measured ones: 90% right, 40% under attack, margins that do not compress."""
    random = np.random.default_rng(seed)
    clean = random.random((n, draws)) < 0.9
    last = clean & (random.random((n, draws)) < 0.45)
    best = last & (random.random((n, draws)) < 0.9)
    margin = random.normal(2, 1.5, n).astype(np.float32)
    drop = random.gamma(2, 1, n).astype(np.float32)
    return Outcome(clean, last, best, margin, margin - drop, np.zeros(n, np.uint8))


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch


def _weights(job: Any, run: int) -> dict[str, Any]:
    line = {"loss": 1.5, "clean": 0.9, "robust": 0.4, "penalty": 0.0, "images_per_second": 1000.0}
    return {
        "key": job.weights_key, "sha256": job.weights_key[-64:], "spec": identity_of(job.spec),
        "log": [line | {"epoch": epoch} for epoch in range(1, 31)], "seconds": 100.0, "run_id": run,
    }  # fmt: skip


def _audit(job: Any, run: int) -> dict[str, Any]:
    return {
        "key": job.weights_key[-64:], "weights_key": job.weights_key,
        "model_hash": hash_of_model(identity_of(job.spec.model)), "norm": "linf", "eps": "1/1000", "n": 128,
        "version": AUDIT_VERSION, "verdict": "ok", "seconds": 60.0, "run_id": run,
        "findings": [Finding("steps", "ok", 0.01, 0.02, "more steps change nothing").as_json()],
    }  # fmt: skip


def _cells(cells: Sequence[CellSpec], runs: Sequence[int]) -> Iterator[dict[str, Any]]:
    began = now() - timedelta(days=30)
    findings = [finding.as_json() for finding in judge_cell(made_up(1000, 1, 0), 10, gradients=True).findings]
    parts: dict[str, Any] = {}

    def part(spec: ModelSpec | AttackSpec) -> Any:
        return parts.get(key_of(spec)) or parts.setdefault(key_of(spec), identity_of(spec))

    for number, cell in enumerate(cells):
        when = began + timedelta(seconds=number)
        robust = round(cell.n * (0.2 + number % 50 / 100))
        spec = {
            "attack": part(cell.attack), "attack_seed": cell.attack_seed, "draws": cell.draws, "dtype": cell.dtype,
            "model": part(cell.model), "n": cell.n, "test_hash": cell.test_hash, "version": cell.version,
            "weights": cell.weights, **({"noise_version": cell.noise_version} if cell.noise_version > 1 else {}),
        }  # fmt: skip
        yield {
            "key": key_of(cell), "weights_key": cell.weights, "status": "done", "verdict": "ok", "dataset": NAME,
            "model": cell.model.name, "defense": cell.defense_name, "seed": cell.seed, "attack": cell.attack.name,
            "norm": cell.attack.norm, "eps": str(cell.attack.eps), "spec": spec, "n": cell.n, "draws": cell.draws,
            "clean_hits": cell.n * 0.9, "robust_hits": robust, "robust_any_hits": robust * 0.98,
            "worst_draw_hits": round(robust * 0.9), "majority_hits": robust, "flags": {}, "findings": findings,
            "forwards": cell.n * 42, "backwards": cell.n * 40, "seconds": 100.0,
            "run_id": runs[number * len(runs) // len(cells)], "created": when, "updated": when,
        }  # fmt: skip


def _chunks(cells: Iterable[CellSpec], chunks_a_cell: float) -> Iterator[dict[str, Any]]:
    pool: dict[tuple[int, int], Sequence[bytes]] = {}
    due, made = 0.0, 0
    for cell in cells:
        starts = range(0, cell.n, CHUNK)
        due += chunks_a_cell
        if due < len(starts):
            continue
        due -= len(starts)
        for start in starts:
            shape = (min(CHUNK, cell.n - start), cell.draws)
            if shape not in pool:
                pool[shape] = [made_up(*shape, seed).pack() for seed in range(_POOL)]
            yield {"cell_key": key_of(cell), "start": start, "n": shape[0], "outcome": pool[shape][made % _POOL]}
            made += 1
