"""`bench show`: everything known about one cell."""

import json
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def show(
    key: Annotated[
        str, typer.Argument(help="A cell's key, or its beginning, as `bench run` and `bench ls runs` print it.")
    ],
    samples: Annotated[bool, typer.Option("--samples", help="Print every image's outcome.")] = False,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Show a cell: its rates, its cost, its full specification, and where it comes from."""
    from bench.report.cells import cell_json, print_cell, samples_json
    from bench.report.failure import failure_json, print_failure
    from bench.store.roster import Roster

    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    failures = Roster(opened).failures(key)
    if len(failures) == 1 and failures[0].key.startswith("train:"):
        # A training that failed left no cell.
        print(json.dumps(failure_json(failures[0]), indent=1)) if as_json else print_failure(failures[0])
        return
    row = opened.cell(key)
    outcome = opened.outcome(row.key) if samples else None
    if as_json:
        shown = cell_json(row) | {
            "spec": dict(row.spec),
            "weights": opened.weights(row.weights_key),
            "provenance": opened.provenance(row.key),
        }
        shown["failure"] = failure_json(failures[0]) if failures else None
        if outcome is not None:
            shown["samples"] = samples_json(outcome)
        print(json.dumps(shown, indent=1))
    else:
        print_cell(row, opened.weights(row.weights_key), opened.provenance(row.key), outcome)
        if failures:
            print_failure(failures[0])
