"""`bench export` and `bench import`: results as files, and two stores made one."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def export(
    file: Annotated[Path, typer.Argument(help="Where to write: .json, .json.gz or .parquet.")],
    defense: o.OnlyDefenses = None,
    attack: o.OnlyAttacks = None,
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Only this training seed.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
) -> None:
    """Write finished cells, with every image's outcome and where it comes from, into one file.

    Another store takes them up with bench import. All cells if no option chooses among them.
    """
    from bench.exchange.bundle import collect_bundle
    from bench.exchange.files import write_results
    from bench.selection import chosen_cells

    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    rows = chosen_cells(opened, defenses=defense, attacks=attack, dataset=dataset, model=model, eps=eps, seed=seed)
    bundle = collect_bundle(opened, rows)
    write_results(file, bundle)
    print(f"wrote {len(bundle.cells)} cells on {len(bundle.weights)} networks to {file}")


def import_(
    files: Annotated[list[Path], typer.Argument(help="What bench export wrote.")],
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
) -> None:
    """Add the cells of other stores to this one.

    Rates and verdicts are computed from the outcomes in the file. A cell that is here already with the same outcomes
    is left alone; one with other outcomes is an error, and nothing of that file is imported. Weights that another
    machine trained by the same recipe with other bits are kept apart.
    """
    import hashlib

    from bench.exchange.files import read_results
    from bench.exchange.merge import merge_bundle

    bundles = [(file, read_results(file)) for file in files]
    opened = o.open_store(results, store)
    for file, bundle in bundles:
        note = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        merged = merge_bundle(opened, bundle, note=note)
        twins = f", {len(merged.twins)} of them on weights that differ from those here" if merged.twins else ""
        print(f"{file}: {len(merged.added)} cells added{twins}, {len(merged.known)} were here already")
