"""`bench perf`: our speed beside other libraries'."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options as o
from bench.errors import BenchError

if TYPE_CHECKING:
    import torch

    from bench.perf.record import Record
    from bench.perf.subject import Subject

_SECTIONS = ("step", "row", "train", "infer", "noise", "arithmetic", "limit", "memory")
_FORMATS = ("text", "md", "json")


def perf(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="wrn16-4 (the default), vgg11, cnn-small, cnn-medium, cnn-large."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="NAME", help=f"{', '.join(_SECTIONS)}; all if not given. Several: separate by commas."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look in less than a minute: cnn-small, one round, small batches.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="64 images, so that peers work at their default batch, and rows in both states."),
    ] = False,
    rounds: Annotated[int | None, typer.Option("--rounds", metavar="INT", help="Timed runs of each; 5.")] = None,
    row_rounds: Annotated[
        int | None, typer.Option("--row-rounds", metavar="INT", help="Timed table rows of each; 1.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", "--images", metavar="INT", help="Images of a table row; 16, with --full 64.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", metavar="INT", help="Images in one step; 16.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", metavar="INT", help="PGD steps in a timed run; 4.")] = None,
    weights: o.Weights = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="NAME", help="Use its test images; random ones if not given."),
    ] = None,
    T: Annotated[int | None, typer.Option("--T", metavar="INT", help="Time steps; 4, or the checkpoint's.")] = None,
    decay: Annotated[
        float | None, typer.Option("--decay", metavar="FLOAT", help="Of the potential; 0.5, or the checkpoint's.")
    ] = None,
    growth: Annotated[
        bool, typer.Option("--growth", help="Instead: time and memory of ours against T, steps, batch and cells.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE", help="Where --growth draws its figure: png, pdf or svg.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where the run is kept: a .json file, or a folder."),
    ] = None,
    show: Annotated[Path | None, typer.Option("--show", metavar="FILE", help="Print a kept run again.")] = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    results: o.Results = o.DEFAULT_RESULTS,
    device: o.Device = "auto",
    threads: o.Threads = None,
    form: Annotated[str, typer.Option("--format", help="text, md or json.")] = "text",
) -> None:
    """Compare the speed of attack steps, table rows, training and inference with other libraries'.

    The same network and weights for all, checked to compute the same; contestants take turns in
    one process, and medians are compared. Only the ratios mean something on another machine.

    Example:

      bench perf --quick
    """
    from bench.names import split_list

    sections = split_list(only or []) or list(_SECTIONS)
    _check(
        sections,
        form,
        {"--rounds": rounds, "--row-rounds": row_rounds, "--images": count, "--batch": batch, "--steps": steps},
    )
    if quick and full:
        raise BenchError("--quick and --full contradict each other; give one of them")
    if growth and only:
        raise BenchError("--only has no effect on --growth; leave it out")
    if figure is not None:
        from bench.figures.style import check_ending

        if not (growth or show):
            raise BenchError("--figure draws what --growth measured; give it with --growth, or with --show")
        check_ending(figure)
    if show is not None:
        from bench.perf.record import read_record
        from bench.report.perf import render

        kept = read_record(show)
        render(kept, form)
        if figure is not None:
            _draw(kept, figure)
        return

    import torch

    from bench.perf.plain import MODELS
    from bench.perf.run import Comparison, Options, default_name
    from bench.perf.run import quick as reduced
    from bench.perf.subject import make_subject
    from bench.report.perf import render
    from bench.runtime import pick_device

    if model is not None and model not in MODELS:
        raise BenchError(f"speed is compared on {', '.join(MODELS)}, not on '{model}'")
    chosen = pick_device(device, threads)
    if quick and only is None:
        sections.remove("memory")
    settled = Options(tuple(sections), threads=torch.get_num_threads(), full=full)
    settled = reduced(settled) if quick else settled
    asked: dict[str, Any] = {"rounds": rounds, "batch": batch, "steps": steps, "row_rounds": row_rounds}
    asked["images"] = count or (64 if full else None)
    settled = replace(settled, **{name: value for name, value in asked.items() if value is not None})
    subject = make_subject(
        model or ("cnn-small" if quick and weights is None else None),
        T=T,
        decay=decay,
        images=max(settled.images, settled.batch * settled.batches),
        weights=weights,
        dataset=dataset,
        data_dir=data_dir,
        in_shape=(3, 16, 16) if quick else (3, 32, 32),
    )
    comparison = Comparison(subject, settled, chosen, _tell)
    record, target = comparison.record, output or results / "perf"

    def path() -> Path:
        return target if target.suffix == ".json" else target / default_name(record)

    def say() -> None:
        print(f"kept in {path()}; print it again with: bench perf --show {path()}", file=sys.stderr)

    def keep(record: "Record") -> None:
        record.write(path())

    try:
        if growth:
            _grow(record, subject, chosen, keep)
        else:
            comparison.run(keep)
    except KeyboardInterrupt:
        render(record, form)
        say()
        raise
    render(record, form)
    if growth:
        _draw(record, figure or path().with_suffix(".png"))
    say()


def _check(sections: list[str], form: str, numbers: dict[str, int | None]) -> None:
    if form not in _FORMATS:
        raise BenchError(f"unknown format '{form}'; choose from {', '.join(_FORMATS)}")
    for name in sections:
        if name not in _SECTIONS:
            raise BenchError(f"--only knows {', '.join(_SECTIONS)}, not '{name}'")
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise BenchError(f"{name} must be at least 1, got {value}")


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _draw(record: "Record", figure: Path) -> None:
    from bench.figures.growth import draw_growth
    from bench.figures.style import write_figure

    for path in write_figure(draw_growth(record), figure):
        print(f"figure: {path}", file=sys.stderr)


def _grow(record: "Record", subject: "Subject", device: "torch.device", keep: Callable[["Record"], None]) -> None:
    from bench.perf.growth import measure_growth
    from bench.perf.record import load

    record.begin()
    began = time.perf_counter()
    try:
        measure_growth(subject, record, record.setup["threads"], str(device), _tell)
    except KeyboardInterrupt:
        record.interrupted = True
        raise
    finally:
        record.seconds = time.perf_counter() - began
        record.load.append(load())
        keep(record)
