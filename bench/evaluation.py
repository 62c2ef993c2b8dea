"""Attack and score, chunk by chunk. Attacks propose; only this file decides what counted."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from bench.costs.passes import planned, settings_of
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
_SPAN = 8
"""Chunks that a GPU attacks at once where it would have too little to do with one."""
_SMALL = 1_000_000
"""Weights of a network whose calls take a GPU less time than it takes to ask for them."""
_SPAN_PASSES = 1_000 * CHUNK
"""Passes in images, about, after which outcomes are stored: a kill may cost so many."""
_PATH = 40
"""Steps that an attack of any number of steps is taken to have, where one run serves several numbers."""


@dataclass(frozen=True)
class ChunkResult:
    """What one chunk of one attack run gives: an outcome for each cell, and what it cost.

    Attributes:
        start: index of the first image.
        outcomes: cell -> outcome.
        forwards, backwards: passes through the model, in images, scoring included.
        more: whether the next result was computed together with this one, so that it costs nothing to have it.
    """

    start: int
    outcomes: dict[CellSpec, Outcome]
    forwards: int
    backwards: int
    more: bool = False


class Room:
    """How many images at once fit into memory; it shrinks where they did not.

    Args:
        batch: to begin with.
    """

    def __init__(self, batch: int = CHUNK) -> None:
        self.batch = batch
        self._together = True

    @property
    def together(self) -> bool:
        """Whether several chunks may be attacked at once, where that is faster."""
        return self._together and self.batch >= CHUNK

    def separate(self) -> None:
        """From now on a chunk at a time."""
        self._together = False

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
    # Spans begin where they always do, so that a resumed run computes what an uninterrupted one does.
    wide = CHUNK * _chunks_at_once(model, cells, device)
    for first in range(0, cells[0].n, wide):
        starts = range(first, min(first + wide, cells[0].n), CHUNK)
        if all(start in done for start in starts):
            continue
        results: list[ChunkResult] | None = None
        while results is None:
            try:
                with computing(model, how, device):
                    results = _evaluate_span(CountedModel(model), dataset, cells, starts, device, known, room)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the except block: the error holds on to what filled the memory.
            if results is None and len(starts) > 1 and room.together:
                room.separate()
                _free(device)
            elif results is None:
                _make_room(cells[0], room, device)
        new = [result for result in results if result.start not in done]
        yield from (replace(result, more=result is not new[-1]) for result in new)


def _chunks_at_once(model: nn.Module, cells: Sequence[CellSpec], device: torch.device) -> int:
    """How many chunks an attack is given at once.

    Rounding on a GPU depends on it, and outcomes may depend neither on the machine's state nor on which other cells one
    run serves, since some of them may be stored already. So it is a matter of what all cells of one `trajectory_key`
    have in common, and not of time measured, memory free or the number of steps.
    """
    attack = cells[0].attack
    entry = ATTACKS.entry(attack.family)
    if device.type != "cuda" or attack.norm == EVENTS or not entry.builtin or ATTACKS.get(attack.family).own_batches:
        return 1
    if sum(parameter.numel() for parameter in model.parameters()) > _SMALL:
        return 1
    settings = settings_of(cells[:1])
    work = planned(replace(settings, steps=(_PATH,)) if attack.shares_trajectory else settings)
    return max(1, min(_SPAN, int(_SPAN_PASSES / max((work.forwards + work.backwards) / work.chunks, 1))))


def _make_room(cell: CellSpec, room: Room, device: torch.device) -> None:
    attack = cell.attack
    if ATTACKS.get(attack.family).own_batches or not ATTACKS.entry(attack.family).builtin:
        raise BenchError(
            f"attack '{attack.name}' {NO_ROOM} on {room.batch} images at once, and may draw random numbers "
            "for a batch as a whole, so that halves would have other outcomes; use a device with more memory"
        )
    room.shrink(f"attack '{attack.name}'")
    _free(device)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _evaluate_span(
    counted: "CountedModel",
    dataset: Dataset,
    cells: Sequence[CellSpec],
    starts: range,
    device: torch.device,
    known: "CleanScores",
    room: Room,
) -> list[ChunkResult]:
    """Consecutive chunks: attacked together if there is room, or one by one, `room.batch` images at once."""
    last = min(starts[-1] + CHUNK, cells[0].n)
    if len(starts) > 1 and room.together:
        return _evaluate_part(counted, dataset, cells, torch.arange(starts[0], last), device, known)
    results = []
    for start in starts:
        # Even parts: a remainder of one or two images would be convolved by other kernels, which round otherwise.
        size = min(CHUNK, last - start)
        parts = torch.arange(start, start + size).tensor_split(-(-size // room.batch))
        found = [_evaluate_part(counted, dataset, cells, index, device, known)[0] for index in parts]
        results.append(
            ChunkResult(
                start,
                {cell: Outcome.concatenate([part.outcomes[cell] for part in found]) for cell in cells},
                sum(part.forwards for part in found),
                sum(part.backwards for part in found),
            )
        )
    return results


def _evaluate_part(
    counted: "CountedModel",
    dataset: Dataset,
    cells: Sequence[CellSpec],
    index: Tensor,
    device: torch.device,
    known: "CleanScores",
) -> list[ChunkResult]:
    """Images that are attacked at once, within one chunk or several whole ones: a result for each."""
    first = cells[0]
    key = derive_key(first.weights, first.test_hash, "scoring noise")
    x = dataset.pixels(dataset.x_test[index], device)
    y = dataset.y_test[index].to(device)
    counted.reset(index.to(device))
    # Scored chunk by chunk however many are attacked at once: what a network does on an image does not depend on the
    # attack, down to the last bit.
    chunks = [
        _Chunk(int(part[0]), slice(int(part[0] - index[0]), int(part[-1] - index[0]) + 1), part.to(device))
        for part in index.split(CHUNK)
    ]
    clean = [_clean(counted, first, chunk, x, y, key, known) for chunk in chunks]
    proposed = _proposed(counted, dataset, cells, index, x, y)
    results = []
    for chunk, scores in zip(chunks, clean, strict=True):
        placebo = score(counted, chunk.of(x), chunk.of(y), chunk.samples, key, first.draws)
        flags = _flags(counted, chunk.rows, scores, placebo)
        outcomes = {
            cell: _judge(
                counted, chunk.of(y), chunk, proposed[cell.attack.steps].of(chunk), scores, flags, key, cell.draws
            )
            for cell in cells
        }
        results.append((chunk.start, outcomes))
    return [
        ChunkResult(start, outcomes, forwards, backwards)
        for (start, outcomes), forwards, backwards in zip(
            results, _shared(counted.forwards, chunks), _shared(counted.backwards, chunks), strict=True
        )
    ]


class _Chunk(NamedTuple):
    """Images that are scored at once: the number of the first, which rows of the batch they are, their numbers."""

    start: int
    # A part of the batch itself, and no copy: its layout in memory decides how sums are rounded.
    rows: slice
    samples: Tensor

    def of(self, batch: Tensor) -> Tensor:
        """Its rows."""
        return batch[self.rows]


def _shared(passes: int, chunks: Sequence[_Chunk]) -> list[int]:
    """Passes of a batch by its chunks' sizes: nobody knows which image they were for."""
    sizes = [len(chunk.samples) for chunk in chunks]
    ends = [passes * sum(sizes[: k + 1]) // sum(sizes) for k in range(len(sizes))]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _clean(
    counted: "CountedModel",
    first: CellSpec,
    chunk: _Chunk,
    x: Tensor,
    y: Tensor,
    key: int,
    known: "CleanScores",
) -> "Score":
    which = (first.weights, chunk.start, len(chunk.samples), first.draws, first.attack.arithmetic == "reference")
    if which not in known:
        known[which] = score(counted, chunk.of(x), chunk.of(y), chunk.samples, key, first.draws)
    else:
        # A cell's cost is what it would cost alone, whatever ran before it.
        counted.forwards += first.draws * len(chunk.samples)
    return known[which]


class _Proposed(NamedTuple):
    """A candidate, which of its rows are within the threat model, and with attacks on events what was edited."""

    candidate: Candidate
    inside: Tensor
    edits: NDArray[np.int32] | None

    def of(self, chunk: "_Chunk") -> "_Proposed":
        """What it proposes for one chunk. Recordings are attacked a chunk at a time."""
        last = chunk.of(self.candidate.last)
        best = last if self.candidate.best is self.candidate.last else chunk.of(self.candidate.best)
        return _Proposed(Candidate(last, best), chunk.of(self.inside), self.edits)


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


def _flags(counted: "CountedModel", rows: slice, clean: Score, placebo: Score) -> Tensor:
    """What is wrong with images whatever the attack proposed, uint8 [N].

    The placebo is the attack with eps = 0: its only legal proposal is the image itself, so the image is scored
    once more, after the attack, by the path that its proposals take.
    """
    differs = (placebo.correct != clean.correct).any(1) | (placebo.nan != clean.nan)
    zero, unwatched = (seen[rows].to(differs.device) for seen in (counted.zero_gradient, ~counted.watched))
    return _bits({Flag.PLACEBO: differs, Flag.ZERO_GRADIENT: zero, Flag.UNWATCHED: unwatched})


def _bits(flags: dict[Flag, Tensor]) -> Tensor:
    total = sum(where.to(torch.uint8) * int(flag) for flag, where in flags.items())
    assert isinstance(total, Tensor)
    return total


def _judge(
    model: nn.Module,
    y: Tensor,
    chunk: _Chunk,
    proposed: _Proposed,
    clean: Score,
    flags: Tensor,
    key: int,
    draws: int,
) -> Outcome:
    candidate = proposed.candidate
    last = score(model, candidate.last, y, chunk.samples, key, draws)
    same = candidate.best is candidate.last
    best = last if same else score(model, candidate.best, y, chunk.samples, key, draws)
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
