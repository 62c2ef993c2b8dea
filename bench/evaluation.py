"""Attack and score, chunk by chunk. Attacks propose; only this file decides what counted."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.base import Candidate
from attacks.events.threat import EVENTS
from attacks.gradients import frozen
from attacks.grid import counts_of, of_counts
from attacks.losses import margin
from attacks.threat import Threat
from bench.arithmetic import computing
from bench.data.dataset import Dataset
from bench.data.events import EventDataset
from bench.edited import propose_edits
from bench.errors import NO_ROOM, BenchError, is_out_of_memory
from bench.outcome import Flag, Outcome
from bench.proposal import CHUNK, propose
from bench.registry import ATTACKS
from bench.resolve import threat_of
from bench.spec import CellSpec
from models.random import active_noise_stream, derive_key, noise_stream

_LEAST_BATCH = 8
"""Convolutions of fewer images may round otherwise than those of many."""


@dataclass(frozen=True)
class ChunkResult:
    """What one chunk of one attack run gives: an outcome for each cell, and what it cost.

    Attributes:
        start: index of the first image.
        outcomes: cell -> outcome.
        forwards, backwards: passes through the model, in images, scoring included.
    """

    start: int
    outcomes: dict[CellSpec, Outcome]
    forwards: int
    backwards: int


class Room:
    """How many images at once fit into memory; it shrinks where they did not.

    Args:
        batch: to begin with.
    """

    def __init__(self, batch: int = CHUNK) -> None:
        self.batch = batch

    @property
    def shrunk(self) -> int | None:
        """The size, where it is less than a chunk."""
        return self.batch if self.batch < CHUNK else None

    def shrink(self, what: str) -> None:
        """Halve it.

        Raises:
            BenchError: it is as small as it can be.
        """
        if self.batch <= _LEAST_BATCH:
            raise BenchError(
                f"{what} {NO_ROOM} even with {self.batch} images at once; use a smaller network or fewer time "
                "steps (-T), or a device with more memory"
            )
        self.batch = max(self.batch // 2, _LEAST_BATCH)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    cells: Sequence[CellSpec],
    *,
    device: torch.device,
    done: frozenset[int] = frozenset(),
    clean: "CleanScores | None" = None,
    room: Room | None = None,
) -> Iterator[ChunkResult]:
    """Run one attack trajectory over the test images and score every cell that it serves.

    Args:
        model: trained network, on `device`.
        dataset: its test images are used in order.
        cells: cells that one run of the attack serves (one `trajectory_key`).
        device: where to compute.
        done: starts of chunks that are already stored and are skipped.
        clean: what is known of this network without attack; filled in.
        room: how many images at once fit into memory. A chunk that does not fit is attacked again in halves, which
            gives the same outcomes: an image's depends on that image alone.

    Yields:
        results in image order, a chunk at a time.

    Raises:
        BenchError: the attack failed, changed the model, returned something that is not a batch of images, or does not
            fit into memory.
    """
    known = {} if clean is None else clean
    room = room or Room()
    # Scores and rebuilt networks are the reference's only inside; nothing of it may outlive a yield.
    how = "reference" if cells[0].attack.arithmetic == "reference" else "fast"
    for start in range(0, cells[0].n, CHUNK):
        if start not in done:
            result = None
            while result is None:
                try:
                    with computing(model, how, device):
                        result = _evaluate_chunk(CountedModel(model), dataset, cells, start, device, known, room.batch)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                # Outside of the except block: the error holds on to what filled the memory.
                if result is None:
                    _make_room(cells[0], room, device)
            yield result


def _make_room(cell: CellSpec, room: Room, device: torch.device) -> None:
    attack = cell.attack
    if ATTACKS.get(attack.family).own_batches or not ATTACKS.entry(attack.family).builtin:
        raise BenchError(
            f"attack '{attack.name}' {NO_ROOM} on {room.batch} images at once, and may draw random numbers "
            "for a batch as a whole, so that halves would have other outcomes; use a device with more memory"
        )
    room.shrink(f"attack '{attack.name}'")
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _evaluate_chunk(
    counted: "CountedModel",
    dataset: Dataset,
    cells: Sequence[CellSpec],
    start: int,
    device: torch.device,
    known: "CleanScores",
    batch: int,
) -> ChunkResult:
    """One chunk, `batch` images at once."""
    size = min(CHUNK, cells[0].n - start)
    # Even parts: a remainder of one or two images would be convolved by other kernels, which round otherwise.
    parts = torch.arange(start, start + size).tensor_split(-(-size // batch))
    results = [_evaluate_part(counted, dataset, cells, index, device, known) for index in parts]
    return ChunkResult(
        start,
        {cell: Outcome.concatenate([result.outcomes[cell] for result in results]) for cell in cells},
        sum(result.forwards for result in results),
        sum(result.backwards for result in results),
    )


def _evaluate_part(
    counted: "CountedModel",
    dataset: Dataset,
    cells: Sequence[CellSpec],
    index: Tensor,
    device: torch.device,
    known: "CleanScores",
) -> ChunkResult:
    first, start = cells[0], int(index[0])
    score_key = derive_key(first.weights, first.test_hash, "scoring noise")
    x = dataset.pixels(dataset.x_test[index], device)
    y = dataset.y_test[index].to(device)
    samples = index.to(device)
    counted.reset(samples)
    which = (first.weights, start, len(index), first.draws, first.attack.arithmetic == "reference")
    if which not in known:
        known[which] = score(counted, x, y, samples, score_key, first.draws)
    else:
        # A cell's cost is what it would cost alone, whatever ran before it.
        counted.forwards += first.draws * len(x)
    clean = known[which]
    proposed = _proposed(counted, dataset, cells, index, x, y)
    flags = _flags(counted, clean, score(counted, x, y, samples, score_key, first.draws))
    outcomes = {
        cell: _judge(counted, y, samples, proposed[cell.attack.steps], clean, flags, score_key, cell.draws)
        for cell in cells
    }
    return ChunkResult(start, outcomes, counted.forwards, counted.backwards)


class _Proposed(NamedTuple):
    """A candidate, which of its rows are within the threat model, and with attacks on events what was edited."""

    candidate: Candidate
    inside: Tensor
    edits: NDArray[np.int32] | None


def _proposed(
    counted: "CountedModel", dataset: Dataset, cells: Sequence[CellSpec], index: Tensor, x: Tensor, y: Tensor
) -> dict[int, _Proposed]:
    """What one run of the attack proposes, by step count."""
    attack = cells[0].attack
    if attack.norm == EVENTS:
        if not isinstance(dataset, EventDataset):
            raise BenchError(f"attack '{attack.name}' edits recordings, and dataset '{dataset.name}' has none")
        found = propose_edits(counted, dataset, index, y, cells)
        inside = torch.tensor([not problem for problem in found.problems], device=x.device)
        return {cell.attack.steps: _Proposed(found.candidate, inside, found.edits) for cell in cells}
    threat = threat_of(attack)
    path = propose(counted, x, y, int(index[0]), cells)
    found_at = {cell.attack.steps: path[cell.attack.steps] for cell in cells}
    return {
        steps: _Proposed(candidate, feasible(x, candidate.last, threat) & feasible(x, candidate.best, threat), None)
        for steps, candidate in found_at.items()
    }


@dataclass(frozen=True)
class Score:
    """How images fare over the scoring draws.

    Attributes:
        correct: bool [N, draws].
        margin: z_y - max_{j != y} z_j, mean over draws, [N].
        nan: a logit was NaN or infinite in some draw, bool [N].
        tie: two classes tied for the first place in some draw, bool [N].
    """

    correct: Tensor
    margin: Tensor
    nan: Tensor
    tie: Tensor


CleanScores = dict[tuple[object, ...], Score]
"""How one network's images fare without attack, by chunk: the same for every attack on it."""


def score(model: nn.Module, x: Tensor, y: Tensor, samples: Tensor, key: int, draws: int) -> Score:
    """Score inputs over draws; draw d of an image is the same noise whatever the input."""
    margins = []
    with frozen(model), torch.no_grad(), noise_stream(model, key, samples):
        for _ in range(draws):
            margins.append(-margin(model(x), y))
    stacked = torch.stack(margins, 1)
    nan = ~torch.isfinite(stacked)
    # A tie is not a correct prediction: which class an argmax would name is an accident.
    return Score((stacked > 0) & ~nan, stacked.mean(1), nan.any(1), (stacked == 0).any(1))


def _flags(counted: "CountedModel", clean: Score, placebo: Score) -> Tensor:
    """What is wrong with images whatever the attack proposed, uint8 [N].

    The placebo is the attack with eps = 0: its only legal proposal is the image itself, so the image is scored
    once more, after the attack, by the path that its proposals take.
    """
    differs = (placebo.correct != clean.correct).any(1) | (placebo.nan != clean.nan)
    zero, unwatched = counted.zero_gradient.to(differs.device), ~counted.watched.to(differs.device)
    return _bits({Flag.PLACEBO: differs, Flag.ZERO_GRADIENT: zero, Flag.UNWATCHED: unwatched})


def _bits(flags: dict[Flag, Tensor]) -> Tensor:
    total = sum(where.to(torch.uint8) * int(flag) for flag, where in flags.items())
    assert isinstance(total, Tensor)
    return total


def _judge(
    model: nn.Module,
    y: Tensor,
    samples: Tensor,
    proposed: _Proposed,
    clean: Score,
    flags: Tensor,
    key: int,
    draws: int,
) -> Outcome:
    candidate = proposed.candidate
    last = score(model, candidate.last, y, samples, key, draws)
    same = candidate.best is candidate.last
    best = last if same else score(model, candidate.best, y, samples, key, draws)
    flags = flags | _bits(
        {
            Flag.NAN: clean.nan | last.nan | best.nan,
            Flag.TIE: clean.tie | last.tie | best.tie,
            Flag.OUTSIDE: ~proposed.inside,
        }
    )
    return Outcome(
        _numpy(clean.correct),
        _numpy(last.correct),
        _numpy(best.correct),
        _numpy(clean.margin).astype(np.float32),
        _numpy(last.margin).astype(np.float32),
        _numpy(flags),
        proposed.edits,
    )


def feasible(x: Tensor, x_adv: Tensor, threat: Threat) -> Tensor:
    """Which candidates obey the threat model, recomputed in float64: bool [N]."""
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        got = list(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise BenchError(f"the attack returned {got} instead of images {list(x.shape)}")
    if x_adv.dtype != x.dtype or x_adv.device != x.device:
        raise BenchError(f"the attack returned {x_adv.dtype} on {x_adv.device} instead of {x.dtype} on {x.device}")
    if threat.grid:
        return _feasible_counts(x, x_adv, threat)
    wide = x_adv.double().flatten(1)
    delta = wide - x.double().flatten(1)
    size = delta.abs().amax(1) if threat.norm == "linf" else torch.linalg.vector_norm(delta, dim=1)
    in_box = (wide >= threat.low).all(1) & (wide <= threat.high).all(1)
    # Written so that NaN, which compares false, is outside.
    return (size <= float(threat.eps)) & in_box


def _feasible_counts(x: Tensor, x_adv: Tensor, threat: Threat) -> Tensor:
    """As `feasible` where candidates are whole counts: in counts, since differences of their quotients are rounded."""
    counts, clean = (counts_of(values, threat.grid).flatten(1) for values in (x_adv, x))
    is_count = (of_counts(counts, threat.grid, x.dtype) == x_adv.flatten(1)) | (x_adv == x).flatten(1)
    reached = (counts - clean).abs().amax(1) <= threat.reach
    in_box = (counts >= threat.low * threat.grid).all(1) & (counts <= round(threat.high * threat.grid)).all(1)
    return is_count.all(1) & reached & in_box


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


class CountedModel(nn.Module):
    """Passes calls on, counts forward and backward passes in images, and watches each image's first input gradient.

    Attributes:
        zero_gradient: images whose gradient was zero in every pixel the first time it was taken, bool [N].
        watched: images whose gradient was seen at all, bool [N].
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.reset(torch.zeros(0, dtype=torch.int64))

    def reset(self, samples: Tensor) -> None:
        """Begin anew, for attacks on the images of these numbers, [N]."""
        self.forwards = self.backwards = 0
        self.samples = samples
        self.zero_gradient, self.watched = (torch.zeros(len(samples), dtype=torch.bool) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled() and not bool(self.watched.all()):
            rows = self._rows(len(x))
            if rows is not None:
                x = x.view_as(x)
                x.register_hook(lambda grad: self._watch(grad, rows))
        logits: Tensor = self.model(x)
        if logits.dtype != x.dtype and torch.is_autocast_enabled(x.device.type):
            # Losses and comparisons are computed in the images' precision.
            logits = logits.to(x.dtype)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _rows(self, count: int) -> Tensor | None:
        """Which images the first rows of a call are; None in batches of an attack's own making."""
        stream = active_noise_stream()
        if stream is None:
            return torch.arange(count) if count == len(self.samples) else None
        same = stream.rng.samples[:, None] == self.samples[None]
        known = count and count % max(len(same), 1) == 0 and bool(same.any(1).all())
        return same.int().argmax(1).cpu() if known else None

    def _watch(self, grad: Tensor, rows: Tensor) -> None:
        zero = (grad[: len(rows)] == 0).flatten(1).all(1).cpu()
        new = ~self.watched[rows]
        self.zero_gradient[rows[new]] = zero[new]
        self.watched[rows] = True

    def _count_backward(self, grad: Tensor) -> None:
        self.backwards += len(grad)
