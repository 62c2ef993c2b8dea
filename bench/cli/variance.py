"""`bench variance`: where the uncertainty of a number comes from."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.cli.formats import HELP, chosen_format
from bench.errors import BenchError


def variance(
    defense: Annotated[str, typer.Option("--defense", "-d", metavar="NAME", help="As bench table shows it.")],
    attack: Annotated[str, typer.Option("--attack", "-a", metavar="NAME", help="As bench table shows it.")],
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    iterate: Annotated[str, typer.Option("--iterate", help="last (the default), or any.")] = "last",
    form: Annotated[str | None, typer.Option("--format", help=HELP)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file instead of printing.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Split the uncertainty of a robust accuracy into images, training seeds, attack seeds and draws of the noise.

    All stored cells of one defense under one attack are used, over their training seeds and attack seeds. A source
    with a single level is unknown, and the output says what to run to learn it.

    Example:

      bench run -d tgo -a pgd10 --seed 0,1,2 && bench variance -d tgo -a pgd10
    """
    form = chosen_format(form, output, as_json=as_json)
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    from bench.repeats import advice, repeats
    from bench.report.comparison import split_text
    from bench.selection import chosen_cells
    from bench.statistics.variance import split_variance

    rows = chosen_cells(opened, defenses=[defense], attacks=[attack], dataset=dataset, model=model, eps=eps)
    found = repeats(opened, rows, iterate)
    split = split_variance(found.correct)
    o.write_or_print(split_text(split, found, advice(found, split, opened), form), output)
