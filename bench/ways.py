"""The way a network was trained: what two networks that differ in nothing but the seed have in common."""

from collections.abc import Mapping
from typing import Any

from bench.canonical import canonical_json
from bench.noise import is_noisy_cell
from bench.store import CellRow

Trained = Mapping[str, Mapping[str, Any]]
"""What the store knows of each set of weights, from `Store.trained`."""


def way_of(row: CellRow, trained: Trained) -> str:
    """Names the way in which the network under a cell was trained: architecture, defense, recipe, data, not the seed.

    Weights that were given are a way of their own, since nobody knows how they were trained. What another machine
    trained by the same specification is of the same way.

    Args:
        row: any cell of the network.
        trained: from the store that the cell is in.
    """
    spec = dict(trained.get(row.weights_key, {}).get("spec") or {})
    spec.pop("seed", None)
    given = row.weights_key if row.weights_key.startswith("file:") else ""
    return canonical_json([row.spec["model"], spec, given])


def is_noisy(row: CellRow) -> bool:
    """Whether the network under a cell draws noise when it is run."""
    return is_noisy_cell(row.spec)
