"""Runs a plan: train or load each network once, then every attack that is missing on it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from bench.checkpoint import load_into, load_tensors
from bench.data.dataset import Dataset, pixels
from bench.errors import BenchError
from bench.evaluation import evaluate
from bench.hygiene import check_model
from bench.plan import Plan, TrainJob
from bench.provenance import provenance
from bench.spec import CellSpec, identity_of, key_of
from bench.store import CellRow, Store
from bench.training import Progress, build_without_rng, hash_of, load_trained, train

_HYGIENE_IMAGES = 32


class Listener:
    """What a display may want to hear while a plan runs; does nothing by itself."""

    def training(self, job: TrainJob) -> Progress:
        return Progress()

    def waiting(self, job: TrainJob) -> None: ...

    def attacking(self, cells: Sequence[CellSpec], done: frozenset[int]) -> None: ...

    def attacked(self, images: int, robust: int) -> None: ...

    def finished(self, row: CellRow) -> None: ...

    def failed(self, what: str, error: str) -> None: ...


@dataclass
class Report:
    """What came of a plan: a row for each cell in the plan's order, and what failed."""

    rows: list[CellRow] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    computed: int = 0


def run_plan(plan: Plan, store: Store, checkpoints: Path, device: torch.device, listener: Listener) -> Report:
    """Compute what the store lacks, committing every chunk as it is finished.

    A network or an attack that fails is recorded and does not stop the others.

    Args:
        plan: from `make_plan`.
        store: where results go.
        checkpoints: folder of trained weights.
        device: where to compute.
        listener: told what happens.

    Raises:
        BenchError: the store or the results folder can no longer be written.
    """
    report = Report()
    known = dict(plan.stored)
    run = store.begin_run(provenance(device)) if plan.missing else 0
    for job in plan.jobs:
        groups = [group for group in job.trajectories if any(key_of(cell) not in known for cell in group)]
        if not groups:
            continue
        _check_writable(checkpoints)
        try:
            model = _network(job, plan.dataset, store, checkpoints, device, run, listener)
        except BenchError as error:
            what = f"{job.spec.defense_name} (seed {job.spec.seed})"
            listener.failed(what, str(error))
            report.failures.append(f"{what}: {error}")
            continue
        for group in groups:
            missing = tuple(cell for cell in group if key_of(cell) not in known)
            rows = _attack(model, plan.dataset, missing, store, device, run, listener, report)
            known.update({row.key: row for row in rows})
            report.computed += len(rows)
    report.rows = [known[key_of(cell)] for cell in plan.cells if key_of(cell) in known]
    return report


def _network(
    job: TrainJob,
    dataset: Dataset,
    store: Store,
    checkpoints: Path,
    device: torch.device,
    run: int,
    listener: Listener,
) -> nn.Module:
    """The network of a job, trained now if need be, checked and recorded."""
    model: nn.Module
    if job.weights_file is not None:
        tensors, _ = load_tensors(job.weights_file)
        model = build_without_rng(job.spec)
        load_into(model, tensors, job.weights_file)
        model = model.to(device).to(memory_format=torch.channels_last).eval()
        record = {"file": str(job.weights_file), "model": identity_of(job.spec.model)}
        store.record_weights(job.weights_key, hash_of(model), record, [], None, run)
    else:
        key = key_of(job.spec)
        trained = load_trained(job.spec, checkpoints, device)
        if trained is None:
            lock = FileLock(checkpoints / f".{key[:16]}.lock")
            try:
                lock.acquire(timeout=0)
            except TimeoutError:
                listener.waiting(job)
                lock.acquire()
            try:
                trained = load_trained(job.spec, checkpoints, device) or train(
                    job.spec, job.defense, dataset, checkpoints, device=device, progress=listener.training(job)
                )
            finally:
                lock.release()
        model = trained.model
        log = [vars(line) for line in trained.log]
        store.record_weights(job.weights_key, trained.weights_sha256, identity_of(job.spec), log, trained.seconds, run)
    check_model(model, pixels(dataset.x_test[:_HYGIENE_IMAGES], device), dataset.num_classes)
    return model


def _attack(
    model: nn.Module,
    dataset: Dataset,
    cells: tuple[CellSpec, ...],
    store: Store,
    device: torch.device,
    run: int,
    listener: Listener,
    report: Report,
) -> list[CellRow]:
    """Measure cells that one attack run serves; a failure of the attack is recorded, not raised."""
    done = frozenset.intersection(*(store.begin_cell(cell, run) for cell in cells))
    listener.attacking(cells, done)
    results = evaluate(model, dataset, cells, device=device, done=done)
    while True:
        began = time.perf_counter()
        try:
            result = next(results, None)
        except BenchError as error:
            for cell in cells:
                store.fail_cell(cell, str(error))
            what = f"{cells[0].defense_name} under {', '.join(cell.attack.name for cell in cells)}"
            listener.failed(what, str(error))
            report.failures.append(f"{what}: {error}")
            return []
        if result is None:
            break
        seconds = time.perf_counter() - began
        store.add_chunks(result.start, result.outcomes, result.forwards, result.backwards, seconds)
        strongest = result.outcomes[cells[-1]]
        listener.attacked(strongest.n, int(strongest.robust_last.sum()))
    rows = [store.finish_cell(cell) for cell in cells]
    for row in rows:
        listener.finished(row)
    return rows


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"bench")
        probe.unlink()
    except OSError as error:
        raise BenchError(
            f"cannot write to '{folder}': {error.strerror}; choose another folder with --results"
        ) from error
