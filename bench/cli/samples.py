"""`bench show --samples N`: what an attack did to some samples, drawn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.data import Dataset
    from bench.evidence.samples import Sample
    from bench.spec import CellSpec
    from bench.store import CellRow, Store

_MOST = 64


def draw(
    store: "Store",
    row: "CellRow",
    count: int,
    folder: Path,
    checkpoints: Path,
    data_dir: Path,
    dataset: str | None,
    weights: Path | None,
    model_name: str | None,
    device: str,
    threads: int | None,
) -> list[Path]:
    """Attack some samples of a cell again and write what was done: a picture of all, an animation of each.

    Args:
        store, row: the cell, and where it is.
        count: how many samples: first those that the attack breaks, then others.
        folder: where to write.
        checkpoints, data_dir: folders of weights and datasets.
        dataset, weights: where the samples and weights are, if not where the row says.
        model_name: of a model that is code of a file, as typed.
        device, threads: as typed.

    Returns:
        the files.

    Raises:
        BenchError: the cell has no outcomes yet, or something that it was measured with is missing or has changed.
    """
    from attacks.walk import LEAST_ROWS
    from bench.evidence.samples import attacked_samples, telling
    from bench.evidence.stored import stored_cell, stored_images, stored_network
    from bench.runtime import pick_device

    if not 1 <= count <= _MOST:
        raise BenchError(f"--samples draws 1 to {_MOST} samples, got {count}")
    outcome = store.outcome(row.key)
    if outcome is None or not outcome.n:
        raise BenchError(f"cell {row.key[:12]} has no outcomes yet, so there is nothing to draw; run it first")
    cell = stored_cell(row)
    data = stored_images(cell, data_dir, dataset)
    where = pick_device(device, threads)
    model = stored_network(cell, store, checkpoints, where, weights, model_name)
    numbers = telling(outcome, count)
    typer.echo(f"attacking {len(numbers)} samples again with {row.attack}, which gives what was scored", err=True)
    with _progress(row.attack, row.forwards / outcome.n * max(len(numbers), LEAST_ROWS)) as passed:
        found = attacked_samples(model, data, cell, numbers, where, passed)
    for sample in found:
        stored = bool(outcome.clean[sample.number].all()), bool(outcome.last[sample.number].all())
        if cell.draws == 1 and stored != (sample.clean == sample.label, sample.attacked == sample.label):
            typer.echo(
                f"note: sample {sample.number} fares otherwise than stored: another machine, or other code, rounds "
                "otherwise",
                err=True,
            )
    return _write(found, cell, data, row, folder)


def _write(found: "list[Sample]", cell: "CellSpec", data: "Dataset", row: "CellRow", folder: Path) -> list[Path]:
    from bench.atomic import write_atomically
    from bench.figures.pictures import draw_pictures
    from bench.figures.samples import animate_sample, draw_samples
    from bench.figures.style import write_figure
    from bench.figures.views import view_of_frames, view_of_recordings
    from bench.resolve import event_threat_of

    about = f"{row.defense} ({row.model} on {row.dataset}) under {row.attack}, {row.norm}, eps {row.eps}."
    titles = [_title(sample, data) for sample in found]
    start = folder / row.key[:12]
    if not data.frames:
        x, x_adv = ([getattr(sample, name) for sample in found] for name in ("x", "x_adv"))
        return write_figure(draw_pictures(x, x_adv, titles, about), start.with_name(f"{start.name}.png"))
    views = []
    for sample in found:
        if sample.recording is not None and sample.edited is not None:
            reach = event_threat_of(cell.attack).max_shift
            views.append(view_of_recordings(sample.recording, sample.edited, reach))
        else:
            counts = ((x.double() * data.scale).numpy() for x in (sample.x, sample.x_adv))
            views.append(view_of_frames(*counts))
    titles = [
        f"{title}; {_changed(sample, view.changed, data)}"
        for title, sample, view in zip(titles, found, views, strict=True)
    ]
    written = write_figure(draw_samples(views, titles, about), start.with_name(f"{start.name}.png"))
    for sample, view, title in zip(found, views, titles, strict=True):
        path = start.with_name(f"{start.name}-{sample.number}.gif")
        write_atomically(path, animate_sample(view, title))
        written.append(path)
    return written


def _title(sample: "Sample", data: "Dataset") -> str:
    label, clean, attacked = (data.class_names[number] for number in (sample.label, sample.clean, sample.attacked))
    return f"test sample {sample.number}: {label} \N{RIGHTWARDS ARROW} {clean} clean, {attacked} attacked"


def _changed(sample: "Sample", changed: float, data: "Dataset") -> str:
    if sample.recording is not None:
        return f"{changed:,.0f} of {len(sample.recording):,} events changed"
    total = float(sample.x.double().sum()) * data.scale
    return f"{total:,.0f} counts, changes of {changed:,.1f}"


@contextmanager
def _progress(attack: str, passes: float) -> Iterator[Callable[[int], None]]:
    """A bar of the samples that pass through the network, on stderr; what the run took says about how many."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False, markup=False)
    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task(attack, total=passes)

        def passed(count: int) -> None:
            bars.advance(task, count)

        yield passed
