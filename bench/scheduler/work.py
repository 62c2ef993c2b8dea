"""What is done on one network: train or load it, attack it, store every chunk as it is finished."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from attacks.threat import format_eps
from bench.checkpoint import hash_tensors, load_into, load_tensors
from bench.data.dataset import Dataset
from bench.errors import BenchError, ConflictingResultError, describe, traceback_of
from bench.evaluation import ChunkResult, CleanScores, Room, evaluate
from bench.hygiene import check_model
from bench.plan import TrainJob
from bench.proposal import CHUNK
from bench.scheduler.listener import Listener
from bench.spec import CellSpec, identity_of, key_of
from bench.store import CellRow, Store
from bench.training import EpochLog, Progress, build_without_rng, hash_of, load_trained, train

_HYGIENE_IMAGES = 32
_ASK = 1.0


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
    stop: Callable[[], bool] = lambda: False,
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
        stop: asked after each epoch, and while another process trains the same: whether to leave it for another time.

    Raises:
        BenchError: the weights cannot be read, are others than were planned, were trained otherwise, or are refused.
        Stopped: `stop` said so; the epochs that were finished are kept.
    """
    model: nn.Module
    if job.weights_file is not None:
        tensors, _ = load_tensors(job.weights_file)
        if job.weights_key != f"file:{hash_tensors(tensors)}":
            raise BenchError(
                f"'{job.weights_file}' holds other weights than when it was planned; give the command again"
            )
        model = build_without_rng(job.spec)
        load_into(model, tensors, job.weights_file)
        model = model.to(device).to(memory_format=torch.channels_last).eval()
        record = {"file": str(job.weights_file), "model": identity_of(job.spec.model)}
        store.record_weights(job.weights_key, hash_of(model), record, [], None, run)
    else:
        key = key_of(job.spec)
        trained = load_trained(job.spec, checkpoints, device)
        if trained is None:
            with _alone(checkpoints / f".{key[:16]}.lock", lambda: listener.waiting(job), stop):
                trained = load_trained(job.spec, checkpoints, device) or train(
                    job.spec, job.defense, dataset, checkpoints, device=device,
                    progress=_Stoppable(listener.training(job), stop, job.spec.recipe.epochs),
                )  # fmt: skip
        model = trained.model
        log = [vars(line) for line in trained.log]
        store.record_weights(job.weights_key, trained.weights_sha256, identity_of(job.spec), log, trained.seconds, run)
    if checked:
        check_model(model, dataset.pixels(dataset.x_test[:_HYGIENE_IMAGES], device), dataset.num_classes)
    return model


def called(cells: Sequence[CellSpec]) -> str:
    """Cells of one attack run, in words."""
    first, names = cells[0], ", ".join(cell.attack.name for cell in cells)
    return f"{first.defense_name} (seed {first.seed}) under {names} at eps {format_eps(first.attack.eps)}"


class Stopped(Exception):  # noqa: N818
    """A training that was asked to leave its other epochs for another time."""


@contextmanager
def _alone(lock: Path, waiting: Callable[[], None], stop: Callable[[], bool]) -> Iterator[None]:
    """Inside the block no other process of this folder trains the same network."""
    held, told = FileLock(lock), False
    while True:
        try:
            held.acquire(timeout=_ASK if told else 0)
            break
        except TimeoutError:
            if not told:
                waiting()
            told = True
            if stop():
                raise Stopped from None
    try:
        yield
    finally:
        held.release()


class _Stoppable(Progress):
    """Lets a training stop after an epoch, when what it did is kept."""

    def __init__(self, inner: Progress, stop: Callable[[], bool], epochs: int) -> None:
        self.inner, self.stop, self.epochs = inner, stop, epochs

    def resumed(self, epoch: int) -> None:
        self.inner.resumed(epoch)

    def batch(self, epoch: int, done: int, total: int) -> None:
        self.inner.batch(epoch, done, total)

    def epoch(self, log: EpochLog) -> None:
        self.inner.epoch(log)
        if log.epoch < self.epochs and self.stop():
            raise Stopped


@dataclass(frozen=True)
class Place:
    """Where cells are measured, and as whom.

    Attributes:
        store: where outcomes go.
        device: where to compute; the network is there.
        run: invocation that measures.
        worker: who has taken on the cells (`bench.store.roster`); None where nobody else may.
        listener: told what happens.
        stop: asked before each chunk, or before several that are attacked together: whether to leave the rest for
            another time.
        spent: told of the forward passes of each chunk.
    """

    store: Store
    device: torch.device
    run: int
    worker: int | None = None
    listener: Listener = field(default_factory=Listener)
    stop: Callable[[], bool] = lambda: False
    spent: Callable[[int], None] = lambda forwards: None


@dataclass
class Measured:
    """What came of some cells: a row for each finished one, what failed (in words, and the keys of the cells), and
    whether it was stopped before the end."""

    rows: list[CellRow] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    stopped: bool = False


def measure(
    model: nn.Module,
    dataset: Dataset,
    trajectory: Sequence[CellSpec],
    place: Place,
    clean: CleanScores | None = None,
    room: Room | None = None,
) -> Measured:
    """Run one attack on one network, and store the outcomes of every cell that it serves.

    A failure of the attack is stored with its traceback and not raised.

    Args:
        model: on the place's device.
        dataset: its test images.
        trajectory: cells of one `trajectory_key`; chunks that are stored already are not computed again.
        place: where, and as whom.
        clean: what is known of this network without attack, see `evaluate`.
        room: how many images at once fit into memory, see `evaluate`.

    Raises:
        BenchError: the store can no longer be written.
        LeaseLostError: somebody else does this.
    """
    measured = Measured()
    for cells, done in _equally_far(trajectory, place):
        _attack(model, dataset, cells, done, place, clean, room or Room(), measured)
    return measured


def _equally_far(cells: Sequence[CellSpec], place: Place) -> list[tuple[tuple[CellSpec, ...], frozenset[int]]]:
    """Split the cells of one trajectory by the chunks they already have, so that none is measured twice."""
    groups: dict[frozenset[int], list[CellSpec]] = {}
    for cell in cells:
        groups.setdefault(place.store.begin_cell(cell, place.run), []).append(cell)
    return [(tuple(members), done) for done, members in groups.items()]


def _attack(
    model: nn.Module,
    dataset: Dataset,
    cells: tuple[CellSpec, ...],
    done: frozenset[int],
    place: Place,
    clean: CleanScores | None,
    room: Room,
    measured: Measured,
) -> None:
    """Measure cells that one attack run serves."""
    store, listener = place.store, place.listener
    listener.attacking(cells, done)
    results = evaluate(model, dataset, cells, device=place.device, done=done, clean=clean, room=room)

    def give_up(error: BaseException) -> None:
        for cell in cells:
            store.fail_cell(cell, describe(error), traceback_of(error))
        listener.failed(called(cells), describe(error))
        failure = f"{called(cells)}: {describe(error)}"
        measured.failures.append(failure)
        measured.failed |= {key_of(cell) for cell in cells}

    left = sum(start not in done for start in range(0, cells[0].n, CHUNK))
    while True:
        if left and place.stop():
            measured.stopped = True
            return
        began = time.perf_counter()
        try:
            found = _computed_together(results)
        except (Exception, SystemExit) as error:
            # Attacks may be anyone's code.
            give_up(error)
            return
        if not found:
            break
        seconds = time.perf_counter() - began
        images = sum(result.outcomes[cells[-1]].n for result in found)
        for result in found:
            strongest = result.outcomes[cells[-1]]
            cost = (result.forwards, result.backwards, seconds * strongest.n / images)
            try:
                store.add_chunks(
                    result.start, result.outcomes, *cost, run=place.run, worker=place.worker, batch=room.shrunk
                )
            except ConflictingResultError as error:
                give_up(error)
                return
            left -= 1
            place.spent(result.forwards)
            listener.attacked(strongest.n, int(strongest.robust_last.sum()))
    for cell in cells:
        row = store.finish_cell(cell)
        measured.rows.append(row)
        listener.finished(row)


def _computed_together(results: Iterator[ChunkResult]) -> list[ChunkResult]:
    """The next results that one call of the attack gave: all are stored before anybody is asked whether to stop."""
    found: list[ChunkResult] = []
    while not found or found[-1].more:
        result = next(results, None)
        if result is None:
            break
        found.append(result)
    return found
