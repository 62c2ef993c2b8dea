"""`bench table`: stored cells as a table of defenses by attacks."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError

_FORMATS = ("text", "md", "csv", "latex", "html", "json")


def table(
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
    form: Annotated[str, typer.Option("--format", help="text, md, csv, latex, html or json.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file instead of printing.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Print robust accuracy of every stored network under every stored attack.

    Each value stands with its 95% Wilson interval. Nothing is computed.
    """
    if form not in _FORMATS:
        raise BenchError(f"unknown format '{form}'; choose from {', '.join(_FORMATS)}")
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    from bench.resolve import parse_eps_text

    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    from bench.report.matrix import matrix, render

    rows = opened.cells(dataset=dataset, model=model, eps=parse_eps_text(eps) if eps else None, status="done")
    if not rows:
        raise BenchError("no finished cell matches; see: bench ls runs")
    text = render(matrix(rows, iterate), "json" if as_json else form, opened)
    if output is None:
        print(text)
    else:
        from bench.checkpoint import write_atomically

        write_atomically(output, (text + "\n").encode())
        print(f"wrote {output}")
