"""Stored cells as one table: a row for each network, a column for each attack."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import pandas as pd

from attacks.threat import format_eps
from bench.audit.finding import SUSPECT
from bench.plan import without_eot
from bench.registry import ATTACKS, DEFENSES
from bench.report.doubt import MARK, doubts, footnote
from bench.report.text import make_table, percent
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
        cells: the cells shown, in the order of the columns within the order of the rows.
        iterate: which iterates had to fail: `last` or `any`.
        hidden: cells left out because they are invalid or a later one of the same place replaced them.
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
        if row.summary is None or row.verdict == "invalid":
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
    noisy = {row.attack for row in plain if row.spec["model"]["neuron"]["kind"] != "lif"}
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


def render(table: Matrix, form: str) -> str:
    """The table as `text` or `md`; or its cells, one a line with all their rates, as `csv` or `json`."""
    if form == "csv":
        return pd.DataFrame([flat(row) for row in table.cells]).to_csv(index=False).rstrip()
    if form == "json":
        return json.dumps([flat(row) for row in table.cells], indent=1)
    frame = table.rates
    lines = [
        [_shown(rate, (place, column) in table.suspect) for column, rate in zip(frame.columns, line, strict=True)]
        for place, line in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    written = pd.DataFrame(lines, index=frame.index, columns=frame.columns).reset_index()
    # A column with one value everywhere belongs in the caption.
    constant = [name for name in _PLACE[:_ALWAYS] if written[name].nunique() == 1 and name != "defense"]
    alike = written[written.duplicated(list(_PLACE[:_ALWAYS]), keep=False)]
    hidden = [name for name in _PLACE[_ALWAYS:] if alike.empty or alike[name].nunique() == 1]
    caption = (
        "Robust accuracy in percent, 95% Wilson interval; "
        + {
            "last": "last iterate",
            "any": "any iterate: right under the last and under the strongest one visited",
        }[table.iterate]
    )
    facts = [f"{name} {written[name].iloc[0]}" for name in constant]
    threats = {f"{row.norm} eps {format_eps(Fraction(row.eps))}" for row in table.cells}
    times = {f"T {row.spec['model']['T']}" for row in table.cells}
    facts += [*(next(iter(found)) for found in (threats, times) if len(found) == 1)]
    caption += f". {', '.join(facts)}."
    if table.hidden:
        caption += f" {table.hidden} invalid or superseded cells are left out."
    written = written.drop(columns=[*constant, *hidden])
    note = footnote(table.cells)
    below = ["", note.replace(MARK, f"\\{MARK}", 1) if form == "md" else note] if note else []
    if form == "md":
        header = "| " + " | ".join(written.columns) + " |"
        rule = "|" + "|".join(" --- " for _ in written.columns) + "|"
        body = ["| " + " | ".join(str(value) for value in line) + " |" for line in written.itertuples(index=False)]
        return "\n".join([caption, "", header, rule, *body, *below])
    return "\n".join([_text(caption, written), *below])


def _shown(rate: Rate | None, suspect: bool) -> str:
    return "-" if rate is None else percent(rate) + (MARK if suspect else "")


def flat(row: CellRow) -> dict[str, object]:
    """A cell as one line of data, always with the same columns; rates are shares in [0, 1]."""
    assert row.summary is not None
    spec = row.spec
    line: dict[str, object] = {
        "key": row.key, "dataset": row.dataset, "model": row.model, "T": spec["model"]["T"],
        "defense": row.defense, "seed": row.seed, "attack": row.attack, "norm": row.norm,
        "eps": format_eps(Fraction(row.eps)), "n": row.n, "draws": row.draws, "attack_seed": spec["attack_seed"],
        "test_set": spec["test_hash"], "weights": row.weights_key, "verdict": row.verdict,
        "findings": "; ".join(f"{finding.check}: {finding.says}" for finding in doubts(row)),
        "audit": row.audit.verdict if row.audit else "none",
    }  # fmt: skip
    for name in ("clean", "robust", "robust_any", "attack_success"):
        rate: Rate = getattr(row.summary, name)
        value = round(rate.value, 6) if rate.n else None
        line |= {name: value, f"{name}_low": round(rate.low, 6), f"{name}_high": round(rate.high, 6)}
    return line


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
        # As a title the caption would be folded to the table's width.
        printer.print(caption)
        printer.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())
