"""`bench baseline`: outcomes as a file that `bench check` compares with."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError

baseline = typer.Typer(
    name="baseline", no_args_is_help=True, help="Keep the outcomes of today as a file for bench check."
)


@baseline.command("save")
def save(
    file: Annotated[Path, typer.Argument(help="Where to write: .json.gz, .json or .parquet.")],
    defense: o.OnlyDefenses = None,
    attack: o.OnlyAttacks = None,
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Only this training seed.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
) -> None:
    """Write the per-image outcomes of finished cells into a file, to be committed beside the code.

    Example:

      bench baseline save robustness.json.gz -d at -a pgd40
    """
    from bench.exchange.bundle import collect_bundle
    from bench.exchange.files import write_results
    from bench.selection import chosen_cells

    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    rows = chosen_cells(
        opened, defenses=defense, attacks=attack, dataset=dataset, model=model, eps=eps, seed=seed
    )  # fmt: skip
    invalid = [row for row in rows if row.verdict == "invalid"]
    if invalid:
        raise BenchError(
            f"cell {invalid[0].key[:12]} ({invalid[0].defense}, {invalid[0].attack}) is invalid and cannot be a "
            "baseline; choose others with -d and -a"
        )
    bundle = collect_bundle(opened, rows)
    write_results(file, bundle)
    print(f"wrote {len(bundle.cells)} cell{'s' * (len(bundle.cells) != 1)} to {file}")
    suspect = sum(row.verdict == "suspect" for row in rows)
    if suspect:
        print(f"warning: {suspect} of them are suspect, perhaps too high; see: bench ls runs")
    if any(cell.provenance.get("dirty") for cell in bundle.cells):
        print("warning: measured by code with uncommitted changes")


@baseline.command("show")
def show(file: Annotated[Path, typer.Argument(help="What bench baseline save wrote.")]) -> None:
    """List what a baseline holds."""
    from bench.exchange.files import read_results
    from bench.report.formats import write_sheet
    from bench.report.sheet import Piece, Sheet, rate_piece
    from bench.statistics import wilson

    bundle = read_results(file)
    rows = []
    for cell in bundle.cells:
        names = (cell.labels[name] for name in ("defense", "dataset", "model", "seed", "attack", "norm", "eps"))
        outcome = cell.outcome
        rates = (wilson(float(part.sum()), outcome.n) for part in (outcome.clean.mean(1), outcome.robust_last))
        commit = (cell.provenance.get("commit") or "")[:8]
        rows.append((*(Piece(str(name)) for name in names), *map(rate_piece, rates), Piece(commit or "-")))
    heads = ("defense", "dataset", "model", "seed", "attack", "norm", "eps", "clean", "robust", "commit")
    print(write_sheet(Sheet(heads, tuple(rows), 3, caption=f"{len(rows)} cells in {file}."), "text"))
