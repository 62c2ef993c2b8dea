"""Which of the stored cells a place of a table shows, where several fit it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.report.tables import layout

Cell = Any
"""A row of `cells_frame`, as `itertuples` gives it."""

_TRAINING = ("T", "decay", "surrogate", "epochs", "batch_size", "lr", "train_size", "augment")
_PROTOCOL = ("test_set", "n", "draws", "attack_seed")


def trainings(cells: Iterable[Cell]) -> dict[tuple[object, ...], tuple[object, ...]]:
    """How networks were trained, each with its rank: the paper's way before others, then what most cells share."""
    counts: Counter[tuple[object, ...]] = Counter(map(training, cells))
    return {kind: (-_strange(kind), count, tuple(map(str, kind))) for kind, count in counts.items()}


def training(cell: Cell) -> tuple[object, ...]:
    """How a cell's network was trained; None where that is not known."""
    values = (getattr(cell, name) for name in _TRAINING)
    return tuple(None if pd.isna(value) else value for value in values)


def _strange(kind: tuple[object, ...]) -> int:
    found = dict(zip(_TRAINING, kind, strict=True))
    return sum(
        (
            found["T"] != layout.T,
            found["decay"] != layout.DECAY,
            found["epochs"] != layout.EPOCHS,
            found["lr"] not in (None, layout.LR),
            bool(found["train_size"]),
        )
    )


def networks(cells: Sequence[Cell], ranks: dict[tuple[object, ...], tuple[object, ...]]) -> list[Cell]:
    """The cells of a row's networks: trained in one way, and one network for each training seed.

    No row mixes trainings, and no mean is over seeds that were trained differently. Of several networks of one seed
    the one with most cells is taken, then the newest.

    Args:
        cells: all that fit the row.
        ranks: from `trainings`; the best way that the row has is taken.
    """
    if not cells:
        return []
    best = max((training(cell) for cell in cells), key=lambda kind: ranks[kind])
    kept = []
    of_seed: dict[int, dict[str, list[Cell]]] = {}
    for cell in cells:
        if training(cell) == best:
            of_seed.setdefault(int(cell.seed), {}).setdefault(str(cell.weights), []).append(cell)
    for candidates in of_seed.values():
        fullest = max(candidates.values(), key=_weight)
        kept += fullest
    return kept


def _weight(cells: Sequence[Cell]) -> tuple[object, ...]:
    return len(cells), max(map(_age, cells))


def measurements(cells: Sequence[Cell], images: int, common: int) -> list[Cell]:
    """The cells that one place shows: measured in one way, one for each training seed, by seed.

    The paper's way comes first (attack seed 0, the whole test set), then what is known of most seeds, then the number
    of images that most cells of the table have, then more images, then more scoring draws, then the newest.

    Args:
        cells: of one row's networks, under one attack.
        images: of the paper's test set.
        common: number of images that most cells of the table have.
    """
    if not cells:
        return []
    ways: dict[tuple[object, ...], dict[int, Cell]] = {}
    for cell in sorted(cells, key=_age):
        ways.setdefault(tuple(getattr(cell, name) for name in _PROTOCOL), {})[int(cell.seed)] = cell

    def rank(held: dict[int, Cell]) -> tuple[object, ...]:
        one = next(iter(held.values()))
        return (
            one.attack_seed == 0, one.n == images, len(held), one.n == common, one.n, one.draws,
            max(map(_age, held.values())),
        )  # fmt: skip

    best = max(ways.values(), key=rank)
    return [best[seed] for seed in sorted(best)]


def _age(cell: Cell) -> tuple[pd.Timestamp, str]:
    # The key decides between cells of one moment, so that the same store always gives the same table.
    return cell.updated, str(cell.key)
