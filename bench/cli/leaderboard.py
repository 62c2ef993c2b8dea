"""`bench leaderboard`: networks ranked by their worst case."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError

_FORMATS = ("text", "csv", "latex", "md", "html", "json")

leaderboard = typer.Typer(name="leaderboard", help="Rank stored networks by their worst case over attacks.")


@leaderboard.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    dataset: o.DatasetName = None,
    model: o.ModelName = None,
    defense: o.Defenses = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    norm: Annotated[str | None, typer.Option("--norm", help="Only linf or l2.")] = None,
    division: Annotated[
        str | None, typer.Option("--division", help="Only deterministic, stochastic or event networks.")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="NAME", help="Attacks that a ranked entry must have met."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="text, csv, latex, md, html or json.")] = "text",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file; with html, to this folder.")
    ] = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Rank stored networks by the worst case per image over all attacks stored for them. Nothing is computed.

    Ranked is within what can be compared: one division, one test set, one budget. Networks that met fewer attacks
    than the others are listed below, with what they lack. With --format html a folder of pages is written.
    """
    if context.invoked_subcommand is not None:
        return
    form = "json" if as_json else form
    if form not in _FORMATS:
        raise BenchError(f"unknown format '{form}'; choose from {', '.join(_FORMATS)}")
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    from bench.exchange.choose import chosen_cells
    from bench.leaderboard.entry import DIVISIONS
    from bench.leaderboard.rank import boards
    from bench.leaderboard.sheet import write_boards
    from bench.resolve import split_list

    if division is not None and division not in DIVISIONS:
        raise BenchError(f"unknown division '{division}'; choose from {', '.join(DIVISIONS)}")
    rows = chosen_cells(opened, defenses=defense, dataset=dataset, model=model, eps=eps, norm=norm)
    found = [board for board in boards(opened, rows, split_list(require or ())) if division in (None, board.division)]
    if not found:
        raise BenchError("no network was attacked yet that this leaderboard could rank; see: bench ls runs")
    if form == "html":
        from bench.leaderboard.site.build import write_site

        index = write_site(found, opened, output or Path("leaderboard"), results / "checkpoints", data_dir)
        print(f"wrote {index}")
        return
    o.write_or_print(write_boards(found, form), output)
