"""`bench figure`: the paper's figures of stored networks."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.figures.subjects import Subject

NAMES = ("fig1", "fig3", "fig3-eps", "fig3-lambda", "fig4", "fig4-membrane", "fig4-landscape", "fig5")
_WIDEST = 16


def figure(
    name: Annotated[
        str,
        typer.Argument(
            help="fig1, fig3, fig4 or fig5; one half: fig3-eps, fig3-lambda, fig4-membrane, fig4-landscape."
        ),
    ],
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="KEY,KEY", help="Cells whose networks to show, by their keys.")
    ] = None,
    attack: o.OnlyAttacks = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME", help="Only this dataset: its name, or its .npz file.")
    ] = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only cells of this budget.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Only this training seed.")] = None,
    count: Annotated[
        int | None, typer.Option("-n", "--images", metavar="INT", help="Test images; 64 if not given, 8 for fig5.")
    ] = None,
    grid: Annotated[int, typer.Option("--grid", metavar="INT", help="Points a side of the loss planes, odd.")] = 21,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="png, pdf, svg or json by its ending; png, pdf and svg without one."),
    ] = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    plugins: o.Plugins = None,
) -> None:
    """Draw a figure of the TGO paper from stored networks.

    fig1: potentials of neurons without and under attack. fig3: TGO against SR, both with AT, over eps and over
    lam_max; bench curve draws others. fig4: membrane potentials around the threshold, and the loss around weights
    and images. fig5: input gradients. But for fig3, a vanilla and a TGO network under one attack are shown, or the
    networks of the cells that --keys names. With an output that ends in .json the numbers behind the figure are
    written instead.

    Example:

      bench run -d vanilla,tgo -a rfgsm && bench figure fig4-membrane
    """
    if name not in NAMES:
        raise BenchError(f"unknown figure '{name}'; choose from {', '.join(NAMES)}")
    if name.startswith("fig3"):
        if keys or seed is not None or count is not None:
            raise BenchError(f"{name} is drawn from all stored cells: it takes no --keys, --seed or -n")
        for over in ("eps", "lambda") if name == "fig3" else (name.removeprefix("fig3-"),):
            target = _part_of(output, over) if name == "fig3" else output
            _curve(over, attack, dataset, model, eps, target, results, store)
        return
    if grid < 3 or grid % 2 == 0:
        raise BenchError(f"--grid must be odd and at least 3, got {grid}")
    if count is not None and count < 1:
        raise BenchError(f"-n must be at least 1, got {count}")
    drawn = output is None or output.suffix != ".json"
    if output is not None and drawn:
        from bench.figures.style import check_ending

        check_ending(output)
    if name == "fig5" and drawn and count is not None and count > _WIDEST:
        raise BenchError(
            f"fig5 has room for {_WIDEST} images, got -n {count}; -o fig5.json has the numbers of any number"
        )
    o.load_plugins(plugins)
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    from bench.figures.subjects import about, chosen_rows, subjects
    from bench.frames import cells_frame
    from bench.runtime import pick_device
    from bench.selection import chosen_cells

    # A dataset of one's own is stored under its file's name.
    file = dataset if dataset and dataset.endswith(".npz") else None
    dataset = Path(file).stem if file else dataset
    wanted = [part for part in (keys or "").split(",") if part]
    rows = [opened.cell(key) for key in wanted] or chosen_cells(
        opened, attacks=attack, dataset=dataset, model=model, eps=eps, seed=seed
    )
    where = pick_device(device, threads)
    n = count or (8 if name == "fig5" else 64)
    chosen = chosen_rows(rows, wanted, opened)
    shown = subjects(chosen, opened, results / "checkpoints", data_dir, where, n, file, model)
    if len({subject.name for subject in shown}) < len(shown):
        raise BenchError("two cells of one defense cannot be told apart in a figure; name one of them")
    used = cells_frame(opened, [subject.row for subject in shown])
    for part in ("fig4-membrane", "fig4-landscape") if name == "fig4" else (name,):
        target = _part_of(output, part.removeprefix("fig4-")) if name == "fig4" else output
        caption = about(shown, used, attacked=part in ("fig1", "fig4-landscape"))
        _one(part, shown, caption, grid, target, data_dir, file)


def _part_of(output: Path | None, part: str) -> Path | None:
    """The name of one file of a figure that has several."""
    return output.with_name(f"{output.stem}-{part}{output.suffix}") if output else None


def _curve(
    over: str,
    attack: list[str] | None,
    dataset: str | None,
    model: str | None,
    eps: str | None,
    output: Path | None,
    results: Path,
    store: str | None,
) -> None:
    """One half of Fig. 3: the curves of its two defenses under one attack, which the paper does not name."""
    from bench.cli.curve import curve

    opened = o.open_existing_store(results, store)
    if not attack and opened is not None and opened.cells(attack="pgd10", status="done"):
        attack = ["pgd10"]
    try:
        curve(
            over, attack=attack, defense=["tgo+at", "sr+at"], dataset=dataset, model=model,
            eps=eps if over == "lambda" else None, output=output or Path(f"fig3-{over}"), results=results, store=store,
        )  # fmt: skip
    except BenchError as error:
        raise BenchError(f"{error}; the runs of fig3: bench run --preset fig3") from error


def _one(
    part: str, shown: "list[Subject]", caption: str, grid: int, output: Path | None, data_dir: Path, file: str | None
) -> None:
    from bench.evidence.numbers import Numbers
    from bench.evidence.stored import stored_images
    from bench.figures import flips, heat, membrane, surface
    from bench.figures.style import write_figure

    if part == "fig4-landscape":
        typer.echo(f"{2 * grid * grid} passes over {len(shown[0].x)} images for each network ...", err=True)
    found: dict[str, tuple[Numbers, ...]]
    if part == "fig1":
        found = dict(traces := flips.measure(shown))
        drawn = flips.draw(traces, caption)
    elif part == "fig4-membrane":
        found = dict(histograms := membrane.measure(shown))
        drawn = membrane.draw(histograms, caption, len(shown[0].x))
        typer.echo(membrane.sentence(histograms))
    elif part == "fig4-landscape":
        found = dict(planes := surface.measure(shown, grid))
        drawn = surface.draw(planes, caption, len(shown[0].x))
    else:
        found = dict(maps := heat.measure(shown))
        classes = stored_images(shown[0].cell, data_dir, file).class_names
        drawn = heat.draw(maps, shown[0].x, classes, caption)
        typer.echo(heat.sentence(maps))
    stored = {subject.name: subject.row.defense for subject in shown}
    networks = {stored[name]: [each.to_json() for each in parts] for name, parts in found.items()}
    numbers = json.dumps({"figure": part, "about": caption, "networks": networks}, indent=1)
    if output is not None and output.suffix == ".json":
        o.write_or_print(numbers, output)
        return
    print(f"wrote {', '.join(map(str, write_figure(drawn, output or Path(part), numbers)))}")
