"""Stored cells as one table: a row for each network, a column for each attack."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import pandas as pd

from attacks.events.threat import EVENTS
from attacks.threat import format_eps
from bench.audit.finding import SUSPECT
from bench.canonical import canonical_json
from bench.frames import cells_frame, written_frame
from bench.names import short_names, without_eot
from bench.registry import ATTACKS, DEFENSES
from bench.report.doubt import MARK, footnote
from bench.report.formats import write_sheet
from bench.report.sheet import Piece, Sheet, rate_piece
from bench.statistics import Rate
from bench.statistics.edits import edit_summary
from bench.store import CellRow, Store
from bench.tuning.notes import tuning_note
from bench.ways import is_noisy

_PLACE = ("dataset", "model", "defense", "seed", "n", "draws", "attack seed", "test set", "weights")
_ALWAYS = 5
"""So many of those are shown or stand in the caption; the rest only tell apart rows that are equal otherwise."""


_MOST_CHANGED = 12
"""Of more cells a note does not say what each changed; CSV does."""


@dataclass(frozen=True)
class Matrix:
    """A table of rates.

    Attributes:
        rates: index `_PLACE`, columns `clean` and the attacks; holds `Rate` or None. A row is one network,
            measured in one way: attacks alone differ between its columns.
        cells: the cells shown, in the order of the columns within the order of the rows.
        iterate: which iterates had to fail: `last` or `any`.
        hidden: cells left out: invalid, without the iterate asked for, or replaced by a later one of their place.
        suspect: (row, column) of rates that may be too high.
    """

    rates: pd.DataFrame
    cells: Sequence[CellRow]
    iterate: str
    hidden: int
    suspect: frozenset[tuple[tuple[object, ...], str]] = frozenset()


def matrix(rows: Sequence[CellRow], iterate: str = "last") -> Matrix:
    """Arrange finished cells.

    Args:
        rows: finished cells, oldest first; invalid ones are left out.
        iterate: `last` or `any`.
    """
    several_eps = len({(row.norm, row.eps) for row in rows}) > 1
    places: dict[tuple[object, ...], dict[str, Rate]] = {}
    shown: dict[tuple[tuple[object, ...], str], CellRow] = {}
    columns: dict[str, tuple[object, ...]] = {}
    hidden, named_alike = 0, _named_alike(rows)
    for row in rows:
        if row.summary is None or row.verdict == "invalid" or (iterate == "last" and row.stops_early):
            hidden += 1
            continue
        place = _place(row)
        label = named_alike.get(row.key, row.attack)
        label += f" {row.norm} {format_eps(Fraction(row.eps))}" if several_eps else ""
        line = places.setdefault(place, {})
        shown[place, label] = row
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
    cells = [shown[key] for key in sorted(shown, key=lambda key: (_place_order(key[0]), _attack_order(shown[key])))]
    suspect = frozenset(key for key, row in shown.items() if row.verdict == SUSPECT)
    return Matrix(frame, cells, iterate, hidden, suspect)


def _named_alike(rows: Sequence[CellRow]) -> dict[str, str]:
    """Cell key -> name, where a deterministic network belongs in the column of a mean over draws.

    Such a mean is the plain gradient there, so `--eot` is not in the attack's name; beside noisy networks that were
    run with it, the cell is that column's.
    """
    wanted = {without_eot(row.attack): row.attack for row in rows if without_eot(row.attack) != row.attack}
    if not wanted:
        return {}
    plain = [row for row in rows if row.attack in wanted]
    noisy = {row.attack for row in plain if is_noisy(row)}
    return {row.key: wanted[row.attack] for row in plain if row.attack not in noisy}


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
    terms = [term.partition(":")[0].partition(" ")[0] for term in str(defense).split("+")]
    return dataset, model, len(terms), [_rank(known, term) for term in terms], str(defense), seed


def _attack_order(row: CellRow) -> tuple[object, ...]:
    """Attacks as the registry lists them, then by steps."""
    attack = row.spec["attack"]
    rank = _rank(ATTACKS.names(), attack["family"])
    return rank, attack["family"], attack["steps"], row.norm, Fraction(row.eps), row.attack


def render(table: Matrix, form: str, store: Store | None = None) -> str:
    """The table as `text`, `md`, `latex` or `html`; or its cells, one a line with all their rates, as `csv` or `json`.

    Args:
        store: completes the lines of `csv` and `json` with training and origin, and tables with what attacks on
            events changed.
    """
    if form in ("csv", "json"):
        return written_frame(cells_frame(store, table.cells), form)
    return write_sheet(sheet_of(table, store), form)


def sheet_of(table: Matrix, store: Store | None = None) -> Sheet:
    """The table as a reader sees it: what is the same everywhere stands in the caption.

    Args:
        store: where the cells are, for what is not in their rows.
    """
    places = table.rates.index.to_frame(index=False)
    names = _names(table.cells)
    places["defense"] = [
        names[(dataset, model), defense] for dataset, model, defense, *_ in table.rates.index.to_list()
    ]
    constant = [name for name in _PLACE[:_ALWAYS] if places[name].nunique() == 1 and name != "defense"]
    alike = places[places.duplicated(list(_PLACE[:_ALWAYS]), keep=False)]
    hidden = [name for name in _PLACE[_ALWAYS:] if alike.empty or alike[name].nunique() == 1]
    kept = [name for name in _PLACE if name not in constant and name not in hidden]
    rows = tuple(
        tuple(Piece(str(value)) for value in line)
        + tuple(
            rate_piece(rate, MARK if (place, column) in table.suspect else "")
            for column, rate in zip(table.rates.columns, rates, strict=True)
        )
        for line, place, rates in zip(
            places[kept].itertuples(index=False), table.rates.index, table.rates.to_numpy(), strict=True
        )
    )
    notes = (footnote(table.cells), _changed(table.cells, store), tuning_note(store, table.cells))
    words = len(kept)
    return Sheet(
        (*kept, *map(str, table.rates.columns)), rows, words, caption=_caption(table, places, constant),
        notes=tuple(filter(None, notes)), label="robust-accuracy",
    )  # fmt: skip


def _names(cells: Sequence[CellRow]) -> dict[tuple[Hashable, str], str]:
    """What the defenses are called in a table that also says dataset and model."""
    return short_names(((row.dataset, row.model), row.defense) for row in cells)


def _changed(cells: Sequence[CellRow], store: Store | None) -> str:
    """What attacks on events had to change, and that their rates are of recordings."""
    edited = [row for row in cells if row.norm == EVENTS]
    if not edited:
        return ""
    note = "Attacks on events: eps is edits for each event; rates are of the edited recordings, framed again."
    shares, names = [], _names(cells)
    for row in edited if store is not None and len(edited) <= _MOST_CHANGED else ():
        outcome = store.outcome(row.key) if store is not None else None
        found = edit_summary(outcome) if outcome is not None else None
        if found is not None and found.broken:
            eps = format_eps(Fraction(row.eps))
            name = names[(row.dataset, row.model), row.defense]
            shares.append(f"{name} {row.attack} {eps}: {found.mean_share:.1%} (of {found.broken} recordings)")
    return f"{note} Mean share of events changed where broken: {'; '.join(shares)}." if shares else note


def _caption(table: Matrix, places: pd.DataFrame, constant: Sequence[str]) -> str:
    iterate = {"last": "last iterate", "any": "any iterate: under the worse of the last and the strongest one visited"}
    facts = [f"{name} {places[name].iloc[0]}" for name in constant]
    threats = {f"{row.norm} eps {format_eps(Fraction(row.eps))}" for row in table.cells}
    times = {f"T {row.spec['model']['T']}" for row in table.cells}
    facts += [*(next(iter(found)) for found in (threats, times) if len(found) == 1)]
    caption = f"Robust accuracy in percent, 95% Wilson interval; {iterate[table.iterate]}. {', '.join(facts)}."
    left_out = f" {table.hidden} cells are left out: invalid, superseded or without a last iterate."
    return caption + (left_out if table.hidden else "")
