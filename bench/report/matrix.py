"""Stored cells as one table: a row for each network, a column for each attack."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.report.results import make_table, percent, short_number
from bench.statistics import Rate
from bench.store import CellRow

_PLACE = ("dataset", "model", "defense", "seed", "n", "weights")


@dataclass(frozen=True)
class Matrix:
    """A table of rates.

    Attributes:
        rates: index (dataset, model, defense, seed, n, weights), columns `clean` and the attacks; holds `Rate` or None.
        iterate: which iterates had to fail: `last` or `any`.
        hidden: cells left out because a later one of the same place replaced them.
    """

    rates: pd.DataFrame
    iterate: str
    hidden: int


def matrix(rows: Sequence[CellRow], iterate: str = "last") -> Matrix:
    """Arrange finished cells.

    Args:
        rows: finished cells, oldest first; invalid ones are left out.
        iterate: `last` or `any`.
    """
    several_eps = len({(row.norm, row.eps) for row in rows}) > 1
    places: dict[tuple[object, ...], dict[str, Rate]] = {}
    columns: dict[str, None] = {"clean": None}
    hidden = 0
    for row in rows:
        if row.summary is None or row.verdict == "invalid":
            hidden += 1
            continue
        label = row.attack + (f" {row.norm} {short_number(row.eps)}" if several_eps else "")
        place = (row.dataset, row.model, row.defense, row.seed, row.n, row.weights_key.split(":")[1][:8])
        line = places.setdefault(place, {})
        line["clean"] = row.summary.clean
        if row.attack == "clean":
            continue
        columns[label] = None
        hidden += label in line
        line[label] = row.summary.robust if iterate == "last" else row.summary.robust_any
    index = pd.MultiIndex.from_tuples(list(places), names=_PLACE)
    frame = pd.DataFrame(
        [[line.get(column) for column in columns] for line in places.values()], index=index, columns=list(columns)
    )
    return Matrix(frame, iterate, hidden)


def render(table: Matrix, form: str) -> str:
    """The table as `text`, `md`, `csv` (one line for each rate) or `json`."""
    frame = table.rates
    if form in ("csv", "json"):
        tidy = pd.DataFrame(
            [
                {
                    **dict(zip(_PLACE, place, strict=True)),
                    "attack": column,
                    "iterate": table.iterate,
                    "accuracy": rate.value,
                    "low": rate.low,
                    "high": rate.high,
                }
                for place, line in zip(frame.index.tolist(), frame.to_dict("records"), strict=True)
                for column, rate in line.items()
                if rate is not None
            ]
        )
        if form == "csv":
            return tidy.to_csv(index=False, float_format="%.6f").rstrip()
        return json.dumps(tidy.to_dict("records"), indent=1)
    written = frame.map(lambda rate: percent(rate) if rate is not None else "-").reset_index()
    # A column with one value everywhere belongs in the caption.
    constant = [name for name in _PLACE if written[name].nunique() == 1 and name not in ("defense",)]
    caption = (
        "Robust accuracy in percent, 95% Wilson interval; "
        + {
            "last": "last iterate",
            "any": "any iterate (every scored iterate must fail)",
        }[table.iterate]
    )
    facts = ", ".join(f"{name} {written[name].iloc[0]}" for name in constant if name != "weights")
    caption += f". {facts}." if facts else "."
    if table.hidden:
        caption += f" {table.hidden} invalid or superseded cells are left out."
    written = written.drop(columns=constant)
    if form == "md":
        header = "| " + " | ".join(written.columns) + " |"
        rule = "|" + "|".join(" --- " for _ in written.columns) + "|"
        body = ["| " + " | ".join(str(value) for value in line) + " |" for line in written.itertuples(index=False)]
        return "\n".join([caption, "", header, rule, *body])
    return _text(caption, written)


def _text(caption: str, written: pd.DataFrame) -> str:
    from rich.console import Console

    table = make_table(caption)
    for name in written.columns:
        table.add_column(str(name), justify="left" if name in ("dataset", "model", "defense") else "right")
    for line in written.itertuples(index=False):
        table.add_row(*(str(value) for value in line))
    console = Console(highlight=False)
    width = console.width if console.is_terminal else 200
    printer = Console(width=width, highlight=False)
    with printer.capture() as capture:
        printer.print(table)
    return capture.get().rstrip()
