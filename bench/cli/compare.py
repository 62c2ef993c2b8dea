"""`bench compare`: is the difference between two networks real?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options as o
from bench.cli.formats import HELP, chosen_format
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store import CellRow, Store


def compare(
    first: Annotated[str, typer.Argument(help="A defense, or the key of a cell.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    attack: o.OnlyAttacks = None,
    dataset: o.OnlyDataset = None,
    model: o.OnlyModel = None,
    eps: Annotated[str | None, typer.Option("--eps", help="Only this budget.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Only this training seed.")] = None,
    level: Annotated[float, typer.Option("--level", help="Chance of calling anything real by chance.")] = 0.05,
    iterate: Annotated[str, typer.Option("--iterate", help="last (the default), or any.")] = "last",
    only_sentences: Annotated[
        bool, typer.Option("--sentences", help="Only the sentences, without the table; with --format md as a list.")
    ] = False,
    form: Annotated[str | None, typer.Option("--format", help=HELP)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file instead of printing.")] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Say in one sentence whether one network is more robust than another, or whether that is chance.

    Both must have met the same attack on the same images. The tests are exact and paired, corrected for their
    number (Holm); with several training seeds stored, the seeds are asked as well. Nothing is computed anew.

    A defense that is stored as typed and with tuned values is the one as typed, unless the other side has tuned
    values only: then the tuned two are compared. 'at (tuned)' names the tuned one.

    Examples:

      bench compare tgo+at at --attack pgd40

      bench compare e6dac71f361b 9fe2ebe57946

      bench compare trades at --attack pgd40,sweep20 --sentences
    """
    form = chosen_format(form, output, as_json=as_json)
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    if not 0 < level < 1:
        raise BenchError(f"--level must lie between 0 and 1, got {level:g}")
    if only_sentences and form not in ("text", "md"):
        raise BenchError(f"--sentences are text or md, not {form}; leave out one of the two")
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    from bench.comparison import compare as compared
    from bench.report.comparison import contrast_text, sentences

    filters = {"attacks": attack, "dataset": dataset, "model": model, "eps": eps, "seed": seed}
    one, two = _cells(opened, first, filters), _cells(opened, second, filters)
    if {row.key for row in one} == {row.key for row in two}:
        raise BenchError(f"'{first}' and '{second}' are the same networks; two seeds of one recipe are named by keys")
    contrast = compared(opened, one, two, level=level, iterate=iterate)
    if only_sentences:
        mark = "- " if form == "md" else ""
        o.write_or_print("\n".join(mark + text for text in sentences(contrast)), output)
        return
    o.write_or_print(contrast_text(contrast, form), output)


def _cells(opened: "Store", name: str, filters: Mapping[str, object]) -> "list[CellRow]":
    """Cells of a defense, or the one that a key begins."""
    from bench.selection import chosen_cells

    held = {kind.defense for kind in opened.kinds()}
    looks_like_key = len(name) >= 6 and set(name) <= set("0123456789abcdef")
    if name not in held and looks_like_key:
        return [opened.cell(name)]
    rows = chosen_cells(opened, defenses=[name], **filters)  # type: ignore[arg-type]
    places = {(row.dataset, row.model) for row in rows}
    if len(places) > 1:
        raise BenchError(
            f"'{name}' is stored for {', '.join(sorted('/'.join(place) for place in places))}; "
            "choose with --dataset and --model"
        )
    return rows
