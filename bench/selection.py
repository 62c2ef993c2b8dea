"""Which stored cells a command is about."""

from collections.abc import Sequence
from typing import Any

from bench.errors import BenchError
from bench.names import HELD_OUT, defense_called, parse_eps_text, short_name, split_list, without_eot
from bench.store import CellRow, Store


def chosen_cells(
    store: Store,
    *,
    defenses: Sequence[str] | None = None,
    attacks: Sequence[str] | None = None,
    dataset: str | None = None,
    model: str | None = None,
    eps: str | None = None,
    norm: str | Sequence[str] | None = None,
    seed: int | None = None,
    status: str | None = "done",
) -> list[CellRow]:
    """Cells that have every given property, oldest first; finished ones, unless another status, or any, is asked for.

    Args:
        store: where they are.
        defenses, attacks: names as tables show them; several mean any of them. The bare name of a defense is also that
            of its networks whose values a search found.
        dataset, model, eps, norm, seed, status: one value each; of norms also several, of which any will do.

    Raises:
        BenchError: nothing fits; the message says which name is unknown to the store, if one is.
    """
    held_out = (dataset or "").startswith(HELD_OUT)
    stored, finished = store.names(status, held_out=held_out), "finished " if status == "done" else ""
    columns: dict[str, Any] = {"dataset": dataset, "model": model, "norm": norm, "seed": seed}
    for what, names in (("defense", split_list(defenses or ())), ("attack", split_list(attacks or ()))):
        for name in names:
            if stored and not any(name in called(getattr(cell, what), what) for cell in stored):
                held = ", ".join(sorted({short_name(getattr(cell, what)) for cell in stored}))
                raise BenchError(f"no {finished}cell has the {what} '{name}'; stored are {held}")
        if names:
            stored = [cell for cell in stored if not called(getattr(cell, what), what).isdisjoint(names)]
            columns[what] = {getattr(cell, what) for cell in stored}
    rows = store.cells(status=status, eps=parse_eps_text(eps) if eps else None, **columns)
    if not rows:
        raise BenchError(f"no {finished}cell matches; see: bench ls runs")
    return rows


def called(text: str, what: str) -> set[str]:
    """What a user may type for a cell's defense or attack."""
    if what == "defense":
        return defense_called(text)
    return {text, without_eot(text)}
