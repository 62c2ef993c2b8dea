"""Runs a plan: train or load each network once, then every attack that is missing on it."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from bench.checkpoint import load_into, load_tensors
from bench.data.dataset import Dataset, pixels
from bench.errors import BenchError, ConflictingResultError, describe
from bench.evaluation import CleanScores, evaluate
from bench.hygiene import check_model
from bench.plan import Plan, TrainJob
from bench.provenance import provenance
from bench.spec import CellSpec, identity_of, key_of
from bench.store import CellRow, Kind, Store
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
    """What came of a plan.

    Attributes:
        failures: what failed, a line each.
        computed: how many cells were.
        keys: of the plan's cells, in its order.
        store: where they are.
    """

    failures: list[str] = field(default_factory=list)
    computed: int = 0
    keys: Sequence[str] = ()
    store: Store | None = None

    @cached_property
    def rows(self) -> list[CellRow]:
        """The cells that are finished, in the plan's order; loaded when they are asked for."""
        found = self.store.done(self.keys) if self.store else {}
        return [found[key] for key in self.keys if key in found]

    @cached_property
    def kinds(self) -> list[Kind]:
        """How many cells there are of each kind, where a plan is too large to look at every row."""
        return self.store.kinds(None, self.keys) if self.store else []


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
    report = Report(keys=[key_of(cell) for cell in plan.cells], store=store)
    known = set(plan.stored)
    run = store.begin_run(provenance(device)) if plan.missing else 0
    for job in plan.jobs:
        groups = [group for group in job.trajectories if any(key_of(cell) not in known for cell in group)]
        if not groups:
            continue
        _check_writable(checkpoints)
        try:
            model = network(job, plan.dataset, store, checkpoints, device, run, listener)
        except Exception as error:
            # Defenses and models may be anyone's code.
            _failed(f"{job.spec.defense_name} (seed {job.spec.seed})", error, listener, report)
            continue
        # What was imported under this recipe may turn out to be another network's, now that it was trained here.
        keys = [key_of(cell) for cell in job.cells]
        known = known.difference(keys) | store.done_keys(keys)
        groups = [group for group in job.trajectories if any(key_of(cell) not in known for cell in group)]
        clean: CleanScores = {}
        for group in groups:
            missing = [cell for cell in group if key_of(cell) not in known]
            rows = measure(model, plan.dataset, missing, store, device, run, listener, report, clean)
            known.update(row.key for row in rows)
            report.computed += len(rows)
    return report


def network(
    job: TrainJob,
    dataset: Dataset,
    store: Store,
    checkpoints: Path,
    device: torch.device,
    run: int,
    listener: Listener,
    *,
    checked: bool = True,
) -> nn.Module:
    """The network of a job, trained now if need be, and recorded.

    Args:
        job, dataset: what to train, or which weights to load, and on what.
        store: told of the weights.
        checkpoints: folder of trained weights.
        device: where to train.
        run: of this invocation, see `Store.begin_run`.
        listener: told of the training.
        checked: refuse a network whose logits cannot be trusted (`bench.hygiene`).

    Raises:
        BenchError: the weights cannot be read, were trained otherwise, or are refused.
    """
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
    if checked:
        check_model(model, pixels(dataset.x_test[:_HYGIENE_IMAGES], device), dataset.num_classes)
    return model


def measure(
    model: nn.Module,
    dataset: Dataset,
    trajectory: Sequence[CellSpec],
    store: Store,
    device: torch.device,
    run: int,
    listener: Listener,
    report: Report,
    clean: CleanScores | None = None,
) -> list[CellRow]:
    """Run one attack on one network, and store the outcomes of every cell that it serves.

    Args:
        model: on `device`.
        dataset: its test images.
        trajectory: cells of one `trajectory_key`; chunks that are stored already are not computed again.
        store, run: where results go, and as part of which invocation.
        listener, report: told what happens; a failure of the attack is recorded and not raised.
        clean: what is known of this network without attack, see `evaluate`.
    """
    rows = []
    for cells, done in _equally_far(trajectory, store, run):
        rows += _attack(model, dataset, cells, done, store, device, listener, report, clean)
    return rows


def _equally_far(
    cells: Sequence[CellSpec], store: Store, run: int
) -> list[tuple[tuple[CellSpec, ...], frozenset[int]]]:
    """Split the cells of one trajectory by the chunks they already have, so that none is measured twice."""
    groups: dict[frozenset[int], list[CellSpec]] = {}
    for cell in cells:
        groups.setdefault(store.begin_cell(cell, run), []).append(cell)
    return [(tuple(members), done) for done, members in groups.items()]


def _attack(
    model: nn.Module,
    dataset: Dataset,
    cells: tuple[CellSpec, ...],
    done: frozenset[int],
    store: Store,
    device: torch.device,
    listener: Listener,
    report: Report,
    clean: CleanScores | None,
) -> list[CellRow]:
    """Measure cells that one attack run serves; a failure of the attack is recorded, not raised."""
    listener.attacking(cells, done)
    results = evaluate(model, dataset, cells, device=device, done=done, clean=clean)

    def give_up(error: Exception) -> list[CellRow]:
        for cell in cells:
            store.fail_cell(cell, describe(error))
        names = ", ".join(cell.attack.name for cell in cells)
        _failed(f"{cells[0].defense_name} under {names}", error, listener, report)
        return []

    while True:
        began = time.perf_counter()
        try:
            result = next(results, None)
        except Exception as error:
            return give_up(error)
        if result is None:
            break
        seconds = time.perf_counter() - began
        try:
            store.add_chunks(result.start, result.outcomes, result.forwards, result.backwards, seconds)
        except ConflictingResultError as error:
            return give_up(error)
        strongest = result.outcomes[cells[-1]]
        listener.attacked(strongest.n, int(strongest.robust_last.sum()))
    rows = [store.finish_cell(cell) for cell in cells]
    for row in rows:
        listener.finished(row)
    return rows


def _failed(what: str, error: Exception, listener: Listener, report: Report) -> None:
    text = describe(error)
    listener.failed(what, text)
    report.failures.append(f"{what}: {text}")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"bench")
    except OSError as error:
        raise BenchError(
            f"cannot write to '{folder}': {error.strerror}; choose another folder with --results"
        ) from error
