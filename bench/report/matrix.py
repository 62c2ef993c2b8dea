"""Stored cells as one table: a row for each network, a column for each attack."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import pandas as pd

from attacks.threat import format_eps
from bench.registry import ATTACKS, DEFENSES
from bench.report.results import make_table, percent
from bench.spec import canonical_json
from bench.statistics import Rate
from bench.store import CellRow

_PLACE = ("dataset", "model", "defense", "seed", "n", "draws", "attack seed", "test set", "weights")
_ALWAYS = 5
"""So many of those are shown or stand in the caption; the rest only tell apart rows that are equal otherwise."""


@dataclass(frozen=True)
class Matrix:
    """A table of rates.

    Attributes:
        rates: index `_PLACE`, columns `clean` and the attacks; holds `Rate` or None. A row is one network,
            measured in one way: attacks alone differ between its columns.
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
    columns: dict[str, tuple[object, ...]] = {}
    hidden = 0
    for row in rows:
        if row.summary is None or row.verdict == "invalid":
            hidden += 1
            continue
        place = _place(row)
        label = row.attack + (f" {row.norm} {format_eps(Fraction(row.eps))}" if several_eps else "")
        line = places.setdefault(place, {})
        line["clean"] = row.summary.clean
        if row.spec["attack"]["family"] == "clean":
            continue
        columns[label] = _attack_order(row)
        hidden += label in line
        line[label] = row.summary.robust if iterate == "last" else row.summary.robust_any
    ordered = sorted(places, key=_place_order)
    named = ["clean", *sorted(columns, key=lambda label: columns[label])]
    frame = pd.DataFrame(
        [[places[place].get(column) for column in named] for place in ordered],
        index=pd.MultiIndex.from_tuples(ordered, names=_PLACE),
        columns=named,
    )
    return Matrix(frame, iterate, hidden)


def _place(row: CellRow) -> tuple[object, ...]:
    # Given weights may be run as networks of another T or decay, so the model belongs to what names them.
    network = hashlib.sha256(canonical_json([row.weights_key, row.spec["model"]]).encode()).hexdigest()[:8]
    return (
        row.dataset, row.model, row.defense, row.seed, row.n, row.draws,
        row.spec["attack_seed"], row.spec["test_hash"][:8], network,
    )  # fmt: skip


def _rank(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _place_order(place: tuple[object, ...]) -> tuple[object, ...]:
    """Defenses as the registry lists them, sums after their summands; places equal in that keep their age."""
    dataset, model, defense, seed, *_ = place
    known = DEFENSES.names()
    terms = [term.partition(":")[0] for term in str(defense).split("+")]
    return dataset, model, len(terms), [_rank(known, term) for term in terms], str(defense), seed


def _attack_order(row: CellRow) -> tuple[object, ...]:
    """Attacks as the registry lists them, then by steps."""
    attack = row.spec["attack"]
    rank = _rank(ATTACKS.names(), attack["family"])
    return rank, attack["family"], attack["steps"], row.norm, Fraction(row.eps), row.attack


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
    constant = [name for name in _PLACE[:_ALWAYS] if written[name].nunique() == 1 and name != "defense"]
    alike = written[written.duplicated(list(_PLACE[:_ALWAYS]), keep=False)]
    hidden = [name for name in _PLACE[_ALWAYS:] if alike.empty or alike[name].nunique() == 1]
    caption = (
        "Robust accuracy in percent, 95% Wilson interval; "
        + {
            "last": "last iterate",
            "any": "any iterate (every scored iterate must fail)",
        }[table.iterate]
    )
    facts = ", ".join(f"{name} {written[name].iloc[0]}" for name in constant)
    caption += f". {facts}." if facts else "."
    if table.hidden:
        caption += f" {table.hidden} invalid or superseded cells are left out."
    written = written.drop(columns=[*constant, *hidden])
    if form == "md":
        header = "| " + " | ".join(written.columns) + " |"
        rule = "|" + "|".join(" --- " for _ in written.columns) + "|"
        body = ["| " + " | ".join(str(value) for value in line) + " |" for line in written.itertuples(index=False)]
        return "\n".join([caption, "", header, rule, *body])
    return _text(caption, written)


def _text(caption: str, written: pd.DataFrame) -> str:
    from rich.console import Console

    table = make_table("")
    for name in written.columns:
        words = name in ("dataset", "model", "defense", "test set", "weights")
        table.add_column(str(name), justify="left" if words else "right", overflow="fold")
    for line in written.itertuples(index=False):
        table.add_row(*(str(value) for value in line))
    console = Console()
    width = console.width if console.is_terminal else 200
    printer = Console(width=width, highlight=False, markup=False)
    with printer.capture() as capture:
        printer.print(table)
    # As a title the caption would be folded to the table's width.
    return f"{caption}\n\n{capture.get().rstrip()}"
