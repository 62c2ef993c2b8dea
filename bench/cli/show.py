"""`bench show`: everything known about one cell."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bench.cli import options as o
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store import CellRow, Store


_DRAWN = "Drawn samples"
_LONGEST_NUMBER = 4
"""More digits than any number of samples has are a cell's key."""


class ShowCommand(TyperCommand):
    """Reads `--samples 8` as `--pictures 8`: typer knows no option whose value may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        read = list(args)
        for place in reversed(range(len(args) - 1)):
            number = args[place + 1]
            if args[place] == "--samples" and number.isdecimal() and len(number) <= _LONGEST_NUMBER:
                read[place] = "--pictures"
        return super().parse_args(ctx, [_spelled(word) for word in read])


def _spelled(word: str) -> str:
    return word.replace("--samples=", "--pictures=", 1) if word.startswith("--samples=") else word


def show(
    key: Annotated[
        str, typer.Argument(help="A cell's key, or its beginning, as `bench run` and `bench ls runs` print it.")
    ],
    samples: Annotated[
        bool, typer.Option("--samples", help="Print every image's outcome. With a number, as --pictures.")
    ] = False,
    repeat: Annotated[
        bool,
        typer.Option(
            "--repeat",
            help="Print one command that measures the cell again in a fresh folder. Exit status 1, and why, where that cannot give the same bits.",
        ),
    ] = False,
    pictures: Annotated[
        int | None,
        typer.Option(
            "--pictures",
            metavar="INT",
            help="Attack so many samples again, first those that the attack breaks, and write pictures and animations.",
            rich_help_panel=_DRAWN,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="RESULTS/samples if not given.", rich_help_panel=_DRAWN),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="Where the cell's samples are, for an .npz file of your own.",
            rich_help_panel=_DRAWN,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Where the cell's weights are, if they moved.",
            rich_help_panel=_DRAWN,
        ),
    ] = None,
    model: o.CodeOf = None,
    plugins: o.Plugins = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    device: o.Device = "auto",
    threads: o.Threads = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Show a cell: its rates, its cost, its full specification, and where it comes from.

    With --samples 8 the attack is run again for eight of its samples, with the random numbers of the stored run. A
    picture shows each without and under attack, what changed and when; of event data there is an animation of each.

    Example:

      bench show 3f2a --samples 8 -o pictures
    """
    if pictures is None and (output or dataset or weights or model):
        raise BenchError(
            "-o, --dataset, --weights and --model are for drawn samples: give --samples 8 or another number"
        )
    if samples and repeat:
        raise BenchError("--samples shows what was measured and --repeat measures it again: leave one of them out")
    from attacks.events.threat import EVENTS
    from bench.report.cells import cell_json, edits_json, print_cell, samples_json
    from bench.report.failure import failure_json, print_failure
    from bench.statistics.edits import edit_summary
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
    if pictures is not None:
        if repeat:
            raise BenchError(
                "--samples N draws what was measured and --repeat measures it again: leave one of them out"
            )
        o.load_plugins(plugins)
        from bench.cli.samples import draw

        folder = output or results / "samples"
        places = (folder, results / "checkpoints", data_dir, dataset, weights, model)
        written = draw(opened, row, pictures, *places, device, threads)
        print(json.dumps([str(path) for path in written], indent=1) if as_json else "\n".join(map(str, written)))
        return
    if repeat:
        _repeat(opened, row, results, as_json)
        return
    edited = row.norm == EVENTS and row.summary is not None
    found = opened.outcome(row.key) if samples or edited else None
    outcome, edits = found if samples else None, edit_summary(found) if edited and found is not None else None
    if as_json:
        shown = cell_json(row) | {
            "spec": dict(row.spec),
            "weights": opened.weights(row.weights_key),
            "provenance": opened.provenance(row.key),
            "chunks": [{"start": start, "n": n, "provenance": run} for start, n, run in opened.shares(row.key)],
        }
        shown["failure"] = failure_json(failures[0]) if failures else None
        shown |= {"edits": edits_json(edits)} if edits is not None else {}
        if outcome is not None:
            shown["samples"] = samples_json(outcome)
        print(json.dumps(shown, indent=1))
    else:
        known, provenance = opened.weights(row.weights_key), opened.provenance(row.key)
        print_cell(row, known, provenance, outcome, opened.shares(row.key), edits)
        if failures:
            print_failure(failures[0])


def _repeat(store: "Store", row: "CellRow", results: Path, as_json: bool) -> None:
    """Print the command alone, so that it can be piped to a shell; what else is to say goes to stderr."""
    from bench.cli.matrix import matrix_of
    from bench.repetition import repetition

    found = repetition(store, row, results, lambda command: matrix_of(command).plan())
    if as_json:
        print(json.dumps(asdict(found), indent=1))
    else:
        print(found.command)
        for note in found.notes:
            typer.echo(f"note: {note}", err=True)
        if not found.exact:
            typer.echo(f"this command cannot give the same bits: {'; '.join(found.why)}", err=True)
    if not found.exact:
        raise typer.Exit(1)
