"""`bench evidence`: what a stored network's gradients and potentials look like."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def evidence(
    key: Annotated[
        str, typer.Argument(help="A cell's key, or its beginning, as `bench run` and `bench ls runs` print it.")
    ],
    count: Annotated[
        int, typer.Option("-n", "--images", metavar="INT", help="The first so many of the cell's images.")
    ] = 64,
    eps: Annotated[
        str | None,
        typer.Option("--eps", metavar="EPS", help="Another budget than the cell's; its step size scales with it."),
    ] = None,
    delta: Annotated[
        float, typer.Option("--delta", metavar="X", help="How close to the threshold a potential counts as near.")
    ] = 0.5,
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws",
            metavar="INT",
            help="Realisations of a noisy network's noise to average over; 3 if not given, 1 for others.",
        ),
    ] = None,
    grid: Annotated[
        int, typer.Option("--grid", metavar="INT", help="Points a side of the loss planes, odd; 0 leaves them out.")
    ] = 5,
    batch: Annotated[int, typer.Option("--batch-size", metavar="INT", help="Images at a time.")] = 32,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="NAME", help="Where the cell's images are, for an .npz file of your own."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Where the cell's weights are, if they moved.")
    ] = None,
    model: o.CodeOf = None,
    plugins: o.Plugins = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    as_json: o.AsJson = False,
) -> None:
    """Measure gradients, potentials, flips and the loss around the images of a stored cell.

    Under the cell's own threat model: its eps, its norm, its attacker's surrogate, its attack.
    Nothing is stored. What to look for: gradients that are exactly zero, noise that beats the
    gradient, neurons out of the surrogate's reach.
    """
    for name, value, least in (
        ("-n", count, 1),
        ("--draws", 1 if draws is None else draws, 1),
        ("--batch-size", batch, 1),
    ):
        if value < least:
            raise BenchError(f"{name} must be at least {least}, got {value}")
    if not delta >= 0:
        raise BenchError(f"--delta must not be negative, got {delta}")
    if grid and (grid < 3 or grid % 2 == 0):
        raise BenchError(f"--grid must be odd and at least 3, or 0 for none, got {grid}")
    o.load_plugins(plugins)
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    row = opened.cell(key)

    from attacks.threat import format_eps, parse_eps
    from bench.evidence.run import cell_evidence
    from bench.report.evidence import evidence_json, print_evidence
    from bench.runtime import pick_device

    try:
        budget = parse_eps(eps) if eps is not None else None
    except ValueError as error:
        raise BenchError(str(error)) from error
    found, cell = cell_evidence(
        row,
        opened,
        results / "checkpoints",
        data_dir,
        pick_device(device, threads),
        n=count,
        eps=budget,
        delta=delta,
        draws=draws,
        grid=grid,
        batch=batch,
        dataset=dataset,
        weights_file=weights,
        model_name=model,
    )
    header = {
        "key": row.key,
        "dataset": row.dataset,
        "model": row.model,
        "defense": row.defense,
        "attack": row.attack,
        "norm": cell.attack.norm,
        "eps": str(cell.attack.eps),
        "gradient": cell.attack.surrogate or ("own" if cell.model.own_neurons else cell.model.neuron.surrogate),
    }
    if as_json:
        print(json.dumps(evidence_json(found, header), indent=1))
    else:
        print_evidence(
            found,
            f"{row.defense} ({row.model} on {row.dataset}) under {row.attack}, {row.norm}, "
            f"eps {format_eps(cell.attack.eps)}, gradient {header['gradient']}",
        )
