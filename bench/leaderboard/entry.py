"""What a leaderboard consists of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.statistics import Rate, SeedMean
from bench.store import CellRow

DIVISIONS = ("deterministic", "stochastic", "event")
"""What may be compared: networks without noise, networks with noise, networks on event data."""


@dataclass(frozen=True)
class Seed:
    """One trained network of an entry.

    Attributes:
        seed: of its training.
        weights: key, and `sha256`, `spec`, `seconds` as the store has them.
        cells: of the board's threat model, finished and not invalid, without the clean one.
        clean: accuracy without attack.
        worst: images that stand under every attack (any iterate), per image the worst.
        stands: where each image does, bool [n, draws].
        strongest: the attack that leaves least by itself.
        origin: provenance of the run that measured the newest cell.
    """

    seed: int
    weights: Mapping[str, Any]
    cells: tuple[CellRow, ...]
    clean: Rate
    worst: Rate
    stands: NDArray[np.bool_]
    strongest: str
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One row: a way to train one architecture, measured on one or more seeds.

    Attributes:
        rank: 1 is best; ties share a rank; None where it is not ranked, which `why` explains.
        why: empty, or why it is not ranked: attacks that it has not met, or that it is invalid.
        slug: its name in file names and addresses; unique within a leaderboard, letters, digits and hyphens.
        defense, model, T, recipe: how it was trained; `recipe` is empty for given weights.
        seeds: at least one, unless the entry is invalid.
        clean, worst: over the seeds; the interval is Wilson's for one seed and Student's for several.
        verdict: the worst of its cells'; `invalid` entries are never ranked.
        reasons: behind the verdict.
        missing: attacks of the board that it has not met.
        left_out: what was measured of it and does not count, and why: invalid cells, seeds that met fewer attacks.
        apart: p-value that it and the next one below differ by chance, on the same images, Holm over the board; None
            for the last one and for those that are not ranked.
        passes: forward and backward passes per image of all its attacks, as they state them.
        seconds: time that its attacks took, on `device`.
        version, commit, dirty, device: of the code and machine that measured it.
        repeat: the command that measures it again.
        submitted: what a submission says of itself (`by`, `paper`, `url`), empty for our own runs.
        tuned: the search whose winner it is, in words; empty if it is none's.
    """

    rank: int | None
    why: str
    slug: str
    defense: str
    model: str
    T: int
    recipe: Mapping[str, Any]
    seeds: tuple[Seed, ...]
    clean: SeedMean
    worst: SeedMean
    verdict: str
    reasons: tuple[str, ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    apart: float | None
    passes: int
    seconds: float
    version: str
    commit: str | None
    dirty: bool | None
    device: str
    repeat: str
    submitted: Mapping[str, Any]
    tuned: str = ""


@dataclass(frozen=True)
class Board:
    """Entries that can be compared: one division, one test set, one threat model.

    Attributes:
        division: one of `DIVISIONS`.
        dataset, test_hash, n: the first `n` images of that test set.
        draws: of the noise, over which each image is scored; 1 without noise.
        norm, eps: budget, `eps` as stored (an exact fraction).
        required: attacks that an entry must have met to be ranked, in the order of the table.
        entries: ranked ones first, best first; then those that are not.
    """

    division: str
    dataset: str
    test_hash: str
    n: int
    draws: int
    norm: str
    eps: str
    required: tuple[str, ...]
    entries: tuple[Entry, ...]
