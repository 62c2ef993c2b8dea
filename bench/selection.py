"""Which stored cells a command is about."""

from collections.abc import Sequence

from bench.errors import BenchError
from bench.names import parse_eps_text, split_list, without_eot
from bench.store import CellRow, Store


def chosen_cells(
    store: Store,
    *,
    defenses: Sequence[str] | None = None,
    attacks: Sequence[str] | None = None,
    dataset: str | None = None,
    model: str | None = None,
    eps: str | None = None,
    norm: str | None = None,
    seed: int | None = None,
) -> list[CellRow]:
    """Finished cells that have every given property, oldest first.

    Args:
        store: where they are.
        defenses, attacks: names as tables show them; several mean any of them.
        dataset, model, eps, norm, seed: one value each.

    Raises:
        BenchError: nothing fits; the message says which name is unknown to the store, if one is.
    """
    rows = store.cells(status="done")
    for what, names in (("defense", split_list(defenses or ())), ("attack", split_list(attacks or ()))):
        for name in names:
            if rows and not any(name in _called(row, what) for row in rows):
                held = ", ".join(sorted({getattr(row, what) for row in rows}))
                raise BenchError(f"no finished cell has the {what} '{name}'; stored are {held}")
        rows = [row for row in rows if not names or any(name in _called(row, what) for name in names)]
    budget = parse_eps_text(eps) if eps else None
    for name, wanted in (("dataset", dataset), ("model", model), ("eps", budget), ("norm", norm), ("seed", seed)):
        rows = [row for row in rows if wanted is None or getattr(row, name) == wanted]
    if not rows:
        raise BenchError("no finished cell matches; see: bench ls runs")
    return rows


def _called(row: CellRow, what: str) -> set[str]:
    """What a user may type for a cell's defense or attack."""
    if what == "defense":
        return {row.defense, row.defense.partition(" (")[0]}
    return {row.attack, without_eot(row.attack)}
