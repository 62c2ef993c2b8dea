"""`bench ls`: what there is."""

import json
import shutil
import sys
import textwrap
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError
from bench.registry import KINDS, nearest

_KINDS = [f"{kind}s" for kind in KINDS] + ["runs"]


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help="defenses, attacks, gradients, models, datasets or runs; the names of all if left out."),
    ] = None,
    plugins: o.Plugins = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """List what can be run (defenses, attacks, gradients, models, datasets) or what has been (runs)."""
    if kind is not None and kind not in _KINDS:
        raise BenchError(f"'{kind}' is not a list{nearest(kind, _KINDS)}; choose from {', '.join(_KINDS)}")
    o.load_plugins(plugins)
    if kind is None:
        _print_overview(as_json)
        return
    if kind == "runs":
        from bench.report.cells import cell_json, print_cells

        opened = o.open_existing_store(results, store)
        rows = opened.cells() if opened else []
        if as_json:
            print(json.dumps([cell_json(row) for row in rows], indent=1))
        else:
            print_cells(rows, opened.target if opened else str(results))
        return
    from bench.report.listing import describe

    entries = describe(kind.removesuffix("s"))
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    width = max(len(entry["name"]) for entry in entries) + 2
    for entry in entries:
        _print_line(entry["name"], entry["summary"] + ("" if entry["builtin"] else f"  [{entry['origin']}]"), width)


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
