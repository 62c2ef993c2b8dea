"""`bench worst`: the worst case over stored attacks."""

import json
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def worst(
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    iterate: Annotated[str, typer.Option("--iterate", help="any (the default), or last.")] = "any",
    each: Annotated[
        bool, typer.Option("--each", help="Order the attacks for each network by itself, not for all together.")
    ] = False,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Print, for every stored network, the per-image worst case over all attacks that were run on it.

    A network is as robust as the best attack on it: an image counts only where it survives every one. With noise the
    attack that an image meets in one draw is chosen by its other draws. Attacks are listed in the order that lowers
    robust accuracy fastest per pass. Nothing is computed anew.
    """
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    from bench.names import parse_eps_text
    from bench.report.worst import print_worst, worst_json
    from bench.worst import cheapest_order, in_common, networks, steps

    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    rows = opened.cells(dataset=dataset, model=model, eps=parse_eps_text(eps) if eps else None, status="done")
    found = networks(opened, rows, iterate)
    if not found:
        raise BenchError("no network was measured under two attacks of one budget yet; see: bench ls runs")
    if not each and not in_common(found):
        raise BenchError("the networks have no attack in common; use --each, or --eps, --dataset, --model")
    common = None if each else cheapest_order(found)
    listed = [(network, steps(network, cheapest_order([network]) if common is None else common)) for network in found]
    if as_json:
        print(json.dumps(worst_json(listed), indent=1))
    else:
        print_worst(listed, iterate)
