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
    kind: Annotated[str, typer.Argument(help="defenses, attacks, gradients, models, datasets or runs.")],
    plugins: o.Plugins = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """List what can be run (defenses, attacks, gradients, models, datasets) or what has been (runs)."""
    if kind not in _KINDS:
        raise BenchError(f"'{kind}' is not a list{nearest(kind, _KINDS)}; choose from {', '.join(_KINDS)}")
    o.load_plugins(plugins)
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
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    for entry in entries:
        text = entry["summary"] + ("" if entry["builtin"] else f"  [{entry['origin']}]")
        indent = " " * width
        print(
            textwrap.fill(f"{entry['name']:{width}}{text}", columns, subsequent_indent=indent, break_on_hyphens=False)
        )
