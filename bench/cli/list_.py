"""`bench ls`: what there is."""

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options as o
from bench.errors import BenchError
from bench.registry import KINDS, nearest

if TYPE_CHECKING:
    from bench.store import Store

_MOST_CELLS = 1000
_KINDS = [f"{kind}s" for kind in KINDS] + ["runs"]


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help="defenses, attacks, gradients, models, datasets or runs; the names of all if left out."),
    ] = None,
    defense: o.OnlyDefenses = None,
    attack: o.OnlyAttacks = None,
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    plugins: o.Plugins = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """List what can be run (defenses, attacks, gradients, models, datasets) or what has been (runs).

    The options that choose are for runs. More than a thousand are counted, unless options choose fewer or with --json.
    """
    if kind is not None and kind not in _KINDS:
        raise BenchError(f"'{kind}' is not a list{nearest(kind, _KINDS)}; choose from {', '.join(_KINDS)}")
    chosen = {"defenses": defense, "attacks": attack, "dataset": dataset, "model": model, "eps": eps}
    typed = [name for name, value in chosen.items() if value]
    if kind != "runs" and typed:
        raise BenchError(f"--{typed[0].removesuffix('s')} chooses among runs: bench ls runs")
    o.load_plugins(plugins)
    if kind is None:
        _print_overview(as_json)
        return
    if kind == "runs":
        _runs(o.open_existing_store(results, store), chosen if typed else {}, str(results), as_json)
        return
    from bench.report.listing import describe

    entries = describe(kind.removesuffix("s"))
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    width = max(len(entry["name"]) for entry in entries) + 2
    for entry in entries:
        _print_line(entry["name"], entry["summary"] + ("" if entry["builtin"] else f"  [{entry['origin']}]"), width)


def _runs(opened: "Store | None", chosen: Mapping[str, Any], results: str, as_json: bool) -> None:
    from bench.report.cells import cell_json, print_cells, print_kinds

    if opened is None:
        print("[]") if as_json else print_cells([], results)
        return
    if not chosen and not as_json:
        kinds = opened.kinds(None)
        if sum(kind.cells for kind in kinds) > _MOST_CELLS:
            print_kinds(kinds, opened.target)
            return
    if chosen:
        from bench.selection import chosen_cells

        rows = chosen_cells(opened, **chosen, status=None)
    else:
        rows = opened.cells()
    if as_json:
        print(json.dumps([cell_json(row) for row in rows], indent=1))
    else:
        print_cells(rows, opened.target)


def _print_overview(as_json: bool) -> None:
    from bench.report.listing import overview

    kinds = overview()
    if as_json:
        print(json.dumps(kinds, indent=1))
        return
    width = max(map(len, kinds)) + 2
    for kind, names in kinds.items():
        _print_line(kind, ", ".join(names), width)
    print("\nK is a step count: pgd40. More on a kind: bench ls attacks. What has been run: bench ls runs")


def _print_line(head: str, text: str, width: int) -> None:
    """A name and what belongs to it, which continues below itself where a window is too narrow."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    filled = textwrap.fill(
        f"{head:{width}}{text}", columns, subsequent_indent=" " * width, break_on_hyphens=False, break_long_words=False
    )
    print(filled)
