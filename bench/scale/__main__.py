"""`python -m bench.scale`: fill a synthetic store and measure what everything costs in it."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import BenchError


def scale(
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="TARGET", help="Database to fill: a file that is not there yet, or a URL."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the record goes, as JSON.")
    ] = Path("scale.json"),
    cells: Annotated[
        str, typer.Option("--cells", metavar="INT,...", help="Sizes of the plan, one after the other.")
    ] = "1000,10000,100000,1000000",
    images: Annotated[int, typer.Option("-n", "--images", metavar="INT", help="Test images of every cell.")] = 10_000,
    chunks: Annotated[
        float,
        typer.Option("--chunks", metavar="X", help="Rows of outcomes for each cell; all would be images / 128."),
    ] = 0.4,
    empty: Annotated[
        str | None, typer.Option("--empty", metavar="URL", help="With a URL: a second, empty one to compare with.")
    ] = None,
    old_indices: Annotated[
        bool, typer.Option("--old-indices", help="With the indices of before migration 0005, to compare with.")
    ] = False,
    layouts: Annotated[
        int | None,
        typer.Option("--layouts", metavar="INT", help="Instead: other tables for so many chunks, in SQLite."),
    ] = None,
    show: Annotated[Path | None, typer.Option("--show", metavar="FILE", help="Print a record as Markdown.")] = None,
    before: Annotated[
        Path | None, typer.Option("--before", metavar="FILE", help="With --show: an earlier one beside it.")
    ] = None,
) -> None:
    """Fill a store with synthetic results, stage by stage, and time plans, resuming, tables, lists and writes."""
    if show is not None:
        from bench.report.scale import comparison, markdown
        from bench.scale.record import read_record

        record = read_record(show)
        print("\n".join(comparison(read_record(before), record) if before else markdown(record)))
        return
    command = shlex.join(["python", "-m", "bench.scale", *sys.argv[1:]])
    if layouts is not None:
        from bench.scale.run import measure_tables

        measure_tables(layouts, images, command).write(output)
        print(f"wrote {output}")
        return
    if store is None:
        raise BenchError("name a database to fill with --store, or a record to print with --show")
    from bench.scale.run import WRITERS, measure_growth

    try:
        sizes = [int(size) for size in cells.split(",")]
    except ValueError:
        raise BenchError(f"--cells: '{cells}' is not a list of integers") from None
    measure_growth(
        store, sizes, n=images, chunks_a_cell=chunks, empty=empty,
        command=command, old_indices=old_indices, writers=() if old_indices else WRITERS,
        keep=lambda record: record.write(output), tell=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    print(f"wrote {output}")


if __name__ == "__main__":
    from bench.runtime import share_cores

    share_cores()
    try:
        typer.run(scale)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
