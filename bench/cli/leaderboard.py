"""`bench leaderboard`: networks ranked by their worst case."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.cli.formats import HELP, chosen_format
from bench.errors import BenchError

leaderboard = typer.Typer(name="leaderboard", help="Rank stored networks by their worst case over attacks.")


@leaderboard.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    defense: o.OnlyDefenses = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    norm: o.OnlyNorm = None,
    division: Annotated[
        str | None, typer.Option("--division", help="Only deterministic, stochastic or event networks.")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="NAME", help="Attacks that a ranked entry must have met."),
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help=HELP)] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write to this file; with --format html to this folder, unless it ends in .html."
        ),
    ] = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Rank stored networks by the worst case per image over all attacks stored for them. Nothing is computed.

    Ranked is within what can be compared: one division, one test set, one budget. Networks that met fewer attacks
    than the others are listed below, with what they lack. With --format html a folder of pages is written; with
    -o FILE.html one page with the tables alone.
    """
    if context.invoked_subcommand is not None:
        return
    form = chosen_format(form, output, as_json=as_json)
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    from bench.leaderboard.entry import DIVISIONS
    from bench.leaderboard.rank import boards
    from bench.leaderboard.sheet import write_boards
    from bench.names import split_list
    from bench.selection import chosen_cells

    if division is not None and division not in DIVISIONS:
        raise BenchError(f"unknown division '{division}'; choose from {', '.join(DIVISIONS)}")
    rows = chosen_cells(opened, defenses=defense, dataset=dataset, model=model, eps=eps, norm=norm)
    found = [board for board in boards(opened, rows, split_list(require or ())) if division in (None, board.division)]
    if not found:
        raise BenchError("no network was attacked yet that this leaderboard could rank; see: bench ls runs")
    one_page = output is not None and output.suffix.lower() == ".html"
    if form == "html" and not one_page:
        from bench.leaderboard.site.build import write_site

        index = write_site(found, opened, output or Path("leaderboard"), results / "checkpoints", data_dir, model)
        print(f"wrote {index}")
        return
    text = write_boards(found, form)
    if one_page:
        from bench.report.formats.html import page

        text = page(text, "Leaderboard")
    o.write_or_print(text, output)


@leaderboard.command("submit")
def submit(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write: a .zip file.")],
    by: Annotated[str, typer.Option("--by", help="Who submits: a name, a laboratory.")],
    paper: Annotated[str, typer.Option("--paper", help="The paper behind it.")] = "",
    url: Annotated[str, typer.Option("--url", help="Where code or paper are found.")] = "",
    defense: o.OnlyDefenses = None,
    attack: o.OnlyAttacks = None,
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Only this training seed.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
) -> None:
    """Write cells of yours, with their weights, into a file for somebody else's leaderboard."""
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    from bench.leaderboard.submission import write_submission
    from bench.selection import chosen_cells

    rows = chosen_cells(opened, defenses=defense, attacks=attack, dataset=dataset, model=model, eps=eps, seed=seed)
    about = {name: value for name, value in (("by", by), ("paper", paper), ("url", url)) if value}
    count = write_submission(output, opened, rows, results / "checkpoints", about)
    print(f"wrote {count} cells and their weights to {output}")


@leaderboard.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="What bench leaderboard submit wrote.")],
    sample: Annotated[
        int, typer.Option("--sample", metavar="INT", help="Chunks of 128 images to attack again; 0 means all.")
    ] = 3,
    sample_seed: Annotated[
        int | None, typer.Option("--sample-seed", metavar="INT", help="Which ones; drawn anew if not given.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="X", help="Share of these images that may come out differently.")
    ] = 0.01,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
) -> None:
    """Take up a submission, after attacking a random sample of its images again.

    Weights must be those that the cells name, outcomes must come out again; else nothing is stored and the exit
    status is 1. Audits in the file are not believed.
    """
    import hashlib
    import secrets
    import shlex
    from dataclasses import asdict

    if sample < 0:
        raise BenchError(f"--sample must not be negative, got {sample}")
    if not 0 <= tolerance < 1:
        raise BenchError(f"--tolerance is a share of the images in [0, 1), got {tolerance:g}")
    from bench.exchange.merge import merge_bundle
    from bench.leaderboard.claims import cut
    from bench.leaderboard.submission import audit_commands, keep_weights, read_submission
    from bench.leaderboard.verify import Rerun, verify
    from bench.runtime import pick_device

    def told(rerun: Rerun) -> None:
        last = rerun.start + rerun.images - 1
        typer.echo(
            f"{rerun.defense} under {rerun.attack}, images {rerun.start} to {last}: {rerun.differing} differ", err=True
        )

    drawn = secrets.randbelow(1 << 31) if sample_seed is None else sample_seed
    try:
        submission = read_submission(file)
        claims = cut(submission.bundle)
        where = pick_device(device, threads)
        reruns = verify(submission, data_dir, where, sample=sample, seed=drawn, tolerance=tolerance, told=told)
        opened = o.open_store(results, store)
        note = {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "submission": dict(submission.about),
            "rerun": {"seed": drawn, "chunks": [asdict(rerun) for rerun in reruns]},
        }
        merged = merge_bundle(opened, claims, note=note)
        keep_weights(submission, results / "checkpoints")
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    images = sum(rerun.images for rerun in reruns)
    print(
        f"{sum(rerun.differing for rerun in reruns)} of {images} sampled images differ (sample seed {drawn}); "
        f"{len(merged.added)} cells added, {len(merged.known)} were here already"
    )
    places = (
        ("--results", results, o.DEFAULT_RESULTS),
        ("--store", store, None),
        ("--data-dir", data_dir, o.DEFAULT_DATA),
    )
    where_to = "".join(f" {name} {shlex.quote(str(value))}" for name, value, usual in places if value != usual)
    print("Nobody has audited its networks here; to do so:")
    for command in audit_commands(submission, results / "checkpoints"):
        print(f"  {command}{where_to}")
