"""`bench curve`: robust accuracy over the budget or over lam_max."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def curve(
    over: Annotated[str, typer.Argument(help="eps or lambda.")],
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            "-a",
            metavar="NAME",
            help="The attack of the curves: pgd20; the one most cells are of if not given. Over lambda, and with "
            "--success, also several.",
        ),
    ] = None,
    success: Annotated[
        bool, typer.Option("--success", help="Attack success over eps, a curve for each attack and defense.")
    ] = False,
    defense: o.OnlyDefenses = None,
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Of lambda curves: the budget.")] = None,
    norm: o.NormName = "linf",
    iterate: Annotated[str, typer.Option("--iterate", help="last (the default), or any.")] = "last",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="png, pdf, svg, csv or json by its ending; png, pdf and svg without one."),
    ] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Draw stored robust accuracies as curves with their intervals (Fig. 3 of the TGO paper).

    Over eps: a curve for each defense under one attack. Over lambda: clean and robust accuracy of networks trained
    with several weights of the membrane constraint, beside them as level lines the defenses without one that -d
    names. Nothing is computed.

    Examples:

      bench run -d at,tgo+at -a pgd20 --eps 0.025,0.05,0.075,0.1 && bench curve eps -a pgd20

      bench curve eps --success -d vanilla -a greedy10,random-edits

      bench run --preset fig3 && bench curve lambda -a pgd10,pgd40 -d tgo+at,sr+at --eps 8/255
    """
    if over not in ("eps", "lambda"):
        raise BenchError(f"bench curve draws over eps or lambda, not over '{over}'")
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    from attacks.events.threat import EVENTS
    from bench.figures.curves import draw_curves, eps_curves, lambda_curves, lambdas, of_defenses, said, success_curves
    from bench.figures.style import write_figure
    from bench.frames import cells_frame, written_frame
    from bench.names import split_list
    from bench.selection import chosen_cells

    # Over lambda a defense means its networks of every lam_max.
    exact = defense if over == "eps" else None
    # An attack on events has no other norm, so its name says it.
    norms = (norm, EVENTS) if norm == "linf" else (norm,)
    rows = chosen_cells(opened, defenses=exact, dataset=dataset, model=model, eps=eps, norm=norms)
    cells = cells_frame(opened, rows)
    wanted = split_list(defense or ())
    names = split_list(attack or ())
    if not names:
        held = cells[cells["family"] != "clean"]["attack"]
        names = [str(held.mode().iloc[0])] if len(held) else ["pgd40"]
    if success:
        if over != "eps" or iterate != "last":
            raise BenchError("--success is drawn over eps, of the last iterate")
        curves = success_curves(cells, names)
    elif over == "eps":
        if len(names) > 1:
            raise BenchError("eps curves are of one attack; name one with -a, or draw several with --success")
        curves = eps_curves(cells, names[0], iterate)
    else:
        known = lambdas(opened.trained())
        if not known:
            raise BenchError("no stored network was trained with a membrane constraint; try: bench run --preset fig3")
        curves = lambda_curves(of_defenses(cells, wanted), known, names, iterate, wanted)
    if as_json or (output is not None and output.suffix in (".csv", ".json")):
        form = "json" if as_json or output is None else output.suffix[1:]
        o.write_or_print(written_frame(curves.points, form), output)
        return
    written = write_figure(draw_curves(curves), output or Path(f"{over}-curves"), said(curves))
    print(f"wrote {', '.join(map(str, written))}")
    for note in curves.notes:
        print(note)
