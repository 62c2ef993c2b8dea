"""What came of a run, and what to try next."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from shlex import quote
from typing import Any

from rich.console import Console
from rich.table import Table

from attacks.events.threat import EVENTS
from attacks.threat import format_eps
from bench.names import short_names
from bench.plan import Plan
from bench.report.cells import cell_json, verdict
from bench.report.doubt import footnote, mark
from bench.report.plan import print_note
from bench.report.text import KEY_LENGTH, MOST_LINES, counted, counts, emit, fits, make_console, make_table, percent
from bench.scheduler import Report
from bench.statistics import Rate
from bench.store import CellRow
from bench.tuning.notes import tuning_note


def print_results(plan: Plan, report: Report, store: str) -> None:
    """The table that ends a run."""
    console = make_console()
    if len(plan.cells) > MOST_LINES:
        _print_counts(console, plan, report)
        print_note(console, plan)
        console.print(f"Stored in {store}")
        return
    if not report.rows:
        return
    answered = f"{report.computed} computed now" if report.computed else "all answered from the store"
    rows = _shown(report.rows)
    lines = [_cells_of(row) for row in rows]
    # What is the same in every row belongs above the table, not in it.
    constant = [name for name in ("model", "T", "seed", "eps") if len({line[name] for line in lines}) == 1]
    facts = {name: f"{name} {lines[0][name]}" for name in constant}
    facts |= {"norm": " and ".join(dict.fromkeys(cell.attack.norm for cell in plan.cells))}
    data = plan.dataset.name + (f" / {lines[0]['model']}" if "model" in constant else "")
    title = ", ".join([data, *(facts[name] for name in ("T", "norm", "seed", "eps") if name in facts)])
    table = make_table(f"{title}: {counted(len(lines), 'cell')}, {answered}")
    for name in lines[0]:
        if name not in constant:
            table.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=name == "key")
    for line in lines:
        table.add_row(*(value for name, value in line.items() if name not in constant))
    shown_as_matrix = False
    if fits(console, table):
        emit(console, table)
    elif len(lines) <= _TALL:
        emit(console, _tall(str(table.title), rows, constant))
    else:
        from bench.report.matrix import matrix, render

        shown_as_matrix = True
        print(f"{table.title}\n\n{render(matrix(report.rows), 'text')}\n")
    console.print(
        "Percent with 95% Wilson interval. Robust accuracy: right without and under the attack's last iterate; "
        "any iterate: also under the strongest one visited. Attack success: share of the clean-correct images it flips."
    )
    if any(row.norm == EVENTS for row in report.rows):
        console.print(
            "Attacks on events: eps is edits for each event of a recording; every rate is of the edited recordings, "
            "framed again, any iterate too. What was changed, and the rate by an attack's own frames: bench show KEY."
        )
    note = footnote(report.rows)
    if note and not shown_as_matrix:
        console.print(note)
    tuned = tuning_note(None, report.rows)
    if tuned and not shown_as_matrix:
        console.print(tuned)
    if any(row.draws > 1 for row in report.rows):
        draws = max(row.draws for row in report.rows)
        console.print(
            f"Noisy networks: expectation over {draws} scoring draws, the same noise with and without attack."
        )
    print_note(console, plan)
    console.print(f"Stored in {store}")


def _shown(rows: Sequence[CellRow]) -> list[CellRow]:
    """The same cells, by the names that a table has room for."""
    names = short_names((row.model, row.defense) for row in rows)
    return [replace(row, defense=names[row.model, row.defense]) for row in rows]


def _print_counts(console: Console, plan: Plan, report: Report) -> None:
    """What a plan came to that is too large to list."""
    lines: dict[tuple[str, ...], dict[str, int]] = {}
    for kind in report.kinds:
        line = lines.setdefault((kind.defense, kind.attack), dict.fromkeys(_COUNTED, 0))
        line["cells"] += kind.cells
        what = kind.verdict if kind.status == "done" else kind.status
        line[what if what in _COUNTED else "unfinished"] += kind.cells
    begun = sum(line["cells"] for line in lines.values())
    answered = f"{report.computed:,} computed now" if report.computed else "none computed now"
    title = f"{plan.dataset.name}: {counted(len(plan.cells), 'cell')}, {answered}"
    title += f", {len(plan.cells) - begun:,} not begun" if begun < len(plan.cells) else ""
    counts(console, title, lines, ("defense", "attack"))
    for failure in report.failures[:_TALL]:
        console.print(f"failed {failure}", soft_wrap=True)
    if len(report.failures) > _TALL:
        console.print(f"and {counted(len(report.failures) - _TALL, 'further failure')}; all: bench run ... --json")
    console.print("Verdicts are the cells' own; an audit's are in bench table and bench show.")


_COUNTED = ("cells", "ok", "suspect", "invalid", "failed", "unfinished")
_WORDS = ("defense", "model", "attack", "key")
_TALL = 6
"""More cells than this are shown as a matrix where the window is too narrow for one line each."""


def _tall(title: str, rows: Sequence[CellRow], constant: Sequence[str]) -> Table:
    """The same cells with one line a rate, for narrow windows."""
    table = make_table(title)
    labels = [name for name in ("defense", "model", "T", "seed", "attack", "eps") if name not in constant]
    for name in labels:
        table.add_column(name, overflow="fold")
    table.add_column("rate", no_wrap=True)
    for name in ("%", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("key / verdict", no_wrap=True, min_width=KEY_LENGTH)
    for row in rows:
        s, cell = row.summary, _cells_of(row)
        assert s is not None
        rates = {"clean accuracy": s.clean, "robust accuracy": s.robust, "any iterate": s.robust_any}
        notes = [cell["key"], *verdict(row).replace(": ", ":\n").splitlines()]
        notes += [""] * (4 - len(notes))
        for number, (name, rate) in enumerate((rates | {"attack success": s.attack_success}).items()):
            hide = row.verdict == "invalid" and name != "clean accuracy"
            hide = hide or (row.stops_early and name == "robust accuracy")
            value, _, interval = ("-" if hide else percent(rate)).partition(" ")
            interval += mark(row) if interval and name != "clean accuracy" else ""
            first = [cell[label] if number == 0 else "" for label in labels]
            table.add_row(*first, name, value, interval, str(rate.n), notes[number])
        if row is not rows[-1]:
            table.add_row()
    return table


def _cells_of(row: CellRow) -> dict[str, str]:
    s = row.summary
    assert s is not None

    def attacked(rate: Rate) -> str:
        return "-" if row.verdict == "invalid" else percent(rate) + mark(row)

    return {
        "defense": row.defense,
        "model": row.model,
        "T": str(row.spec["model"]["T"]),
        "seed": str(row.seed),
        "attack": row.attack,
        "eps": format_eps(Fraction(row.eps)),
        "clean accuracy": percent(s.clean),
        "robust accuracy": "-" if row.stops_early else attacked(s.robust),
        "any iterate": attacked(s.robust_any),
        "n": str(s.robust.n),
        "attack success": attacked(s.attack_success),
        "of": str(s.attack_success.n),
        "verdict": verdict(row),
        "key": row.key[:KEY_LENGTH],
    }


def next_commands(report: Report, protocol: str | None, store: str, *, own_neurons: bool = False) -> None:
    """Commands worth trying after this run.

    Args:
        report: what came of the run.
        protocol: every option the user typed, but for the names of defenses and attacks; None where there are several
            protocols, so that no matrix comes next.
        store: options that name the store.
        own_neurons: whether the model brings its own neurons, so that no defense may decide them.
    """
    console = make_console()
    defenses = "vanilla,at" if own_neurons else "vanilla,at,tgo,tgo+at"
    if len(report.keys) > MOST_LINES:
        console.print("Next:")
        kind = next((kind for kind in report.kinds if kind.status == "done"), None)
        if kind is not None:
            console.print(f"  bench table -d {quote(kind.defense)} -a {quote(kind.attack)}{store}", soft_wrap=True)
        console.print(f"  bench ls runs{store}", soft_wrap=True)
        return
    if not report.rows:
        return
    lines = [
        f"bench show {report.rows[-1].key[:KEY_LENGTH]}{store}",
        f"bench run -d {defenses} -a fgsm,rfgsm,pgd7,pgd10,pgd20,pgd40{protocol}",
        f"bench table{store}",
    ]
    # Options of attacks on events are not for those on frames.
    if (
        protocol is None
        or len({row.defense for row in report.rows}) > 1
        or any(row.norm == EVENTS for row in report.rows)
    ):
        del lines[1]
    console.print("Next:")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)


def results_json(report: Report, store: str) -> dict[str, Any]:
    """A run's results for programs."""
    return {
        "store": store,
        "computed": report.computed,
        "failures": report.failures,
        "stopped": report.stopped,
        "left": len(report.keys) - len(report.rows),
        "cells": [cell_json(row) for row in report.rows],
    }


def is_bad(report: Report) -> bool:
    """Whether something failed, or a number is not one."""
    if report.failures:
        return True
    if len(report.keys) > MOST_LINES:
        return any(kind.verdict == "invalid" for kind in report.kinds)
    return any(row.verdict == "invalid" for row in report.rows)
