"""`bench check`: the CI gate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError

_FORMATS = ("text", "md", "json")


def check(
    baseline: Annotated[Path, typer.Option("--baseline", metavar="FILE", help="What bench baseline save wrote.")],
    level: Annotated[float, typer.Option("--level", metavar="X", help="Chance of a false alarm, in all.")] = 0.01,
    min_effect: Annotated[
        float, typer.Option("--min-effect", metavar="X", help="Smallest loss that counts, a share: 0.01 is a point.")
    ] = 0.01,
    iterate: Annotated[str, typer.Option("--iterate", help="last (the default), or any.")] = "last",
    new_weights: Annotated[
        bool, typer.Option("--new-weights", help="Compare another network, such as a retrained one, with the old.")
    ] = False,
    allow_cached: Annotated[
        bool, typer.Option("--allow-cached", help="Accept cells that are the baseline's own measurements.")
    ] = False,
    both_ways: Annotated[
        bool,
        typer.Option("--both-ways", help="A rise fails as well: of fixed weights it is a weaker attack, no progress."),
    ] = False,
    max_moved: Annotated[
        float | None,
        typer.Option(
            "--max-moved", metavar="X", help="Of fixed weights: share of images whose margin may move; else it fails."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A suspect cell fails the check.")] = False,
    form: Annotated[str, typer.Option("--format", help="text, md or json.")] = "text",
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Append the summary for a pull request to it.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Has robustness fallen against a baseline? For CI: run the attacks with bench run, then this.

    Exit status: 0 no regression, 1 regression (also a rise with --both-ways, moved margins with
    --max-moved), 2 not comparable (other data, other weights, other protocol; also
    a mistake in the command), 3 nothing measured, or the store or the baseline cannot be read.
    """
    from bench.gate.check import CONTRADICTION, NOT_MEASURED, run_check
    from bench.gate.junit import junit_xml
    from bench.gate.report import check_json, check_markdown, check_text

    form = "json" if as_json else form
    if form not in _FORMATS:
        raise BenchError(f"unknown format '{form}'; choose from {', '.join(_FORMATS)}")
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    if max_moved is not None and not 0 <= max_moved <= 1:
        raise BenchError(f"--max-moved is a share of the images in [0, 1], got {max_moved:g}")
    if (both_ways or max_moved is not None) and new_weights:
        raise BenchError(CONTRADICTION)
    if not 0 < level < 1:
        raise BenchError(f"--level must lie between 0 and 1, got {level:g}")
    if not 0 <= min_effect < 1:
        raise BenchError(f"--min-effect is a share of the images in [0, 1), got {min_effect:g}")
    from bench.atomic import write_atomically
    from bench.exchange.files import read_results

    try:
        opened = o.open_existing_store(results, store)
        if opened is None:
            raise BenchError(o.no_store(results, store))
        found = run_check(
            opened, read_results(baseline), level=level, min_effect=min_effect, iterate=iterate,
            new_weights=new_weights, allow_cached=allow_cached, strict=strict, both_ways=both_ways,
            max_moved=max_moved,
        )  # fmt: skip
    except BenchError as error:
        # For a gate, what cannot be read is not a mistake in the command: nothing was measured.
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(NOT_MEASURED) from error
    print(
        json.dumps(check_json(found), indent=1) if form == "json"
        else check_markdown(found) if form == "md"
        else check_text(found)
    )  # fmt: skip
    if junit is not None:
        write_atomically(junit, junit_xml(found))
    if markdown is not None:
        # Appended, so that it can be the summary file of a CI job, which other steps write to as well.
        with markdown.open("a") as file:
            file.write(check_markdown(found) + "\n")
    raise typer.Exit(found.status)
