"""`bench table`: stored cells as a table of defenses by attacks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options as o
from bench.cli.formats import HELP, chosen_format
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store import Store

_EVENTS = "events"


def table(
    name: Annotated[
        str | None,
        typer.Argument(
            help="table1 to table5: the paper's table from stored cells; events: attacks on events, with what they "
            "changed and cost; any cells if left out."
        ),
    ] = None,
    defense: o.OnlyDefenses = None,
    attack: o.OnlyAttacks = None,
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    iterate: Annotated[
        str,
        typer.Option(
            "--iterate",
            help="last (as in the literature), or any (right under the last and the strongest one visited; stricter).",
        ),
    ] = "last",
    with_published: Annotated[
        bool, typer.Option("--with-published", help="With a table of the paper: its values and the difference.")
    ] = False,
    form: Annotated[str | None, typer.Option("--format", help=HELP)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file instead of printing.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Print robust accuracy of every stored network under every stored attack, or a table of the paper.

    Each value stands with its 95% interval, and conditions that differ from the paper's stand in the caption.
    Nothing is computed: bench run --preset table1 measures what table1 shows.

    Examples:

      bench table --format md

      bench table -d at,tgo -a pgd40 --eps 8/255

      bench table table1 --with-published --format latex -o table1.tex

      bench table table1 --dataset digits

      bench table events -d vanilla --eps 0.05
    """
    form = chosen_format(form, output, as_json=as_json)
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    if with_published and name in (None, _EVENTS):
        raise BenchError("--with-published needs a table of the paper: bench table table1 --with-published")
    if name not in (None, _EVENTS) and (defense or attack):
        raise BenchError(f"{name} says itself which defenses and attacks it shows: leave out --defense and --attack")
    opened = o.open_existing_store(results, store)
    if name not in (None, _EVENTS):
        text, title = _of_paper(
            name, opened, (dataset, model, eps), iterate, form, with_published, o.no_store(results, store)
        )
    elif opened is None:
        raise BenchError(o.no_store(results, store))
    else:
        from bench.report.matrix import matrix, render
        from bench.selection import chosen_cells

        rows = chosen_cells(opened, defenses=defense, attacks=attack, dataset=dataset, model=model, eps=eps)
        if name == _EVENTS and form not in ("csv", "json"):
            from bench.report.edits import edits_sheet
            from bench.report.formats import write_sheet

            text, title = write_sheet(edits_sheet(opened, rows), form), "Attacks on events"
        else:
            kept = [row for row in rows if name is None or row.norm == name]
            text, title = render(matrix(kept, iterate), form, opened), "Robust accuracy"
    if form == "html" and output is not None:
        from bench.report.formats.html import page

        text = page(text, title)
    o.write_or_print(text, output)


def _of_paper(
    name: str,
    opened: "Store | None",
    what: tuple[str | None, str | None, str | None],
    iterate: str,
    form: str,
    with_published: bool,
    missing: str,
) -> tuple[str, str]:
    """A table of the paper as written, and its title."""
    from fractions import Fraction

    from attacks.threat import format_eps
    from bench.frames import cells_frame
    from bench.names import parse_eps_text
    from bench.report.tables.caption import title
    from bench.report.tables.fill import fill
    from bench.report.tables.layout import paper_table
    from bench.report.tables.write import write_table

    table, (dataset, model, eps) = paper_table(name), what
    if opened is None:
        raise BenchError(missing)
    written = format_eps(Fraction(parse_eps_text(eps))) if eps else None
    filled = fill(table, cells_frame(opened), dataset=dataset, model=model, eps=written, iterate=iterate)
    return write_table(filled, form, with_published=with_published), title(filled)
