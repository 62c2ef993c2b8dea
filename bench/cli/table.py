"""`bench table`: stored cells as a table of defenses by attacks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store import Store

_FORMATS = ("text", "md", "csv", "latex", "html", "json")


def table(
    name: Annotated[
        str | None, typer.Argument(help="table1 to table5: the paper's table from stored cells; any cells if left out.")
    ] = None,
    dataset: o.DatasetName = None,
    model: o.ModelName = None,
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
    form: Annotated[str, typer.Option("--format", help="text, md, csv, latex, html or json.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file instead of printing.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Print robust accuracy of every stored network under every stored attack, or a table of the paper.

    Each value stands with its 95% interval. Nothing is computed; bench run --preset table1 measures what table1
    shows. Conditions that differ from the paper's stand in the caption.

    Examples:

      bench table --format md

      bench table table1 --with-published --format latex -o table1.tex

      bench table table1 --dataset digits
    """
    form = "json" if as_json else form
    if form not in _FORMATS:
        raise BenchError(f"unknown format '{form}'; choose from {', '.join(_FORMATS)}")
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    if with_published and name is None:
        raise BenchError("--with-published needs a table of the paper: bench table table1 --with-published")
    from bench.resolve import parse_eps_text

    if name is not None:
        from bench.report.tables.layout import paper_table

        paper_table(name)
    budget = parse_eps_text(eps) if eps else None
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    if name is None:
        from bench.report.matrix import matrix, render

        rows = opened.cells(dataset=dataset, model=model, eps=budget, status="done")
        if not rows:
            raise BenchError("no finished cell matches; see: bench ls runs")
        text = render(matrix(rows, iterate), form, opened)
    else:
        text = _of_paper(opened, name, dataset, model, budget, iterate, form, with_published)
    if form == "html" and output is not None:
        from bench.report.formats.html import page

        text = page(text, name or "Robust accuracy")
    o.write_or_print(text, output)


def _of_paper(
    opened: "Store",
    name: str,
    dataset: str | None,
    model: str | None,
    budget: str | None,
    iterate: str,
    form: str,
    with_published: bool,
) -> str:
    from fractions import Fraction

    from attacks.threat import format_eps
    from bench.frames import cells_frame
    from bench.report.tables.fill import fill
    from bench.report.tables.layout import paper_table
    from bench.report.tables.write import write_table

    written = format_eps(Fraction(budget)) if budget else None
    cells = cells_frame(opened)
    filled = fill(paper_table(name), cells, dataset=dataset, model=model, eps=written, iterate=iterate)
    return write_table(filled, form, with_published=with_published)
