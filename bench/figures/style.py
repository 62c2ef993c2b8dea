"""How every figure looks, and how it becomes a file."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.atomic import write_atomically
from bench.errors import BenchError

FORMATS = ("png", "pdf", "svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
"""Okabe and Ito's, which colour-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))

_DRAWN = "Drawn by bench from numbers whose SHA-256 is "

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "figure.dpi": 200,
    "svg.hashsalt": "bench",
    "pdf.fonttype": 42,
}


def new_figure(width: float, height: float) -> Figure:
    """A figure of a size in inches, in the house style, with a canvas that needs no screen."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
    return figure


def styled() -> Any:
    """A context in which axes are made and drawn in the house style."""
    return matplotlib.rc_context(_STYLE)


def caption(figure: Figure, text: str, width: int) -> None:
    """Set a small caption under the axes, folded to so many letters."""
    import textwrap

    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=6.5, color="#444444", x=0.01, ha="left")


def spread_out(count: int, most: int) -> list[int]:
    """At most so many of `count` indices, the first and the last among them and the others evenly between."""
    if count <= most:
        return [*range(count)]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def write_figure(figure: Figure, path: Path, numbers: str | None = None) -> list[Path]:
    """Write a figure: in the format that the name ends in, or in all of `FORMATS` where it ends in none.

    The same figure gives the same bytes, today and tomorrow, as long as Matplotlib stays the same.

    Args:
        figure: what to write.
        path: where.
        numbers: all that the figure says, as text. Its SHA-256 goes into the file, see `sum_of_numbers`.

    Raises:
        BenchError: another ending, or the file cannot be written.
    """
    check_ending(path)
    suffix = path.suffix.lstrip(".")
    paths = [path] if suffix else [path.with_name(f"{path.name}.{form}") for form in FORMATS]
    for each in paths:
        write_atomically(each, rendered(figure, each.suffix.lstrip("."), numbers))
    return paths


def check_ending(path: Path) -> None:
    """Before anything is computed: whether a figure can be written under this name.

    Raises:
        BenchError: another ending.
    """
    if path.suffix and path.suffix.lstrip(".") not in FORMATS:
        raise BenchError(f"'{path}' must end in .{', .'.join(FORMATS)}, or in nothing for all of them")


def rendered(figure: Figure, form: str, numbers: str | None = None) -> bytes:
    """A figure as the bytes of a file, with the sum of its numbers if they are given."""
    buffer = io.BytesIO()
    undated = {"png": "Software", "pdf": "CreationDate", "svg": "Date"}[form]
    metadata: dict[str, str | None] = {undated: None}
    if numbers is not None:
        place = "Subject" if form == "pdf" else "Description"
        metadata[place] = _DRAWN + hashlib.sha256(numbers.encode()).hexdigest()
    with styled():
        figure.savefig(buffer, format=form, dpi=200, metadata=metadata)
    return buffer.getvalue()


def sum_of_numbers(drawn: bytes) -> str | None:
    """The SHA-256 of the numbers that a file of `write_figure` was drawn from; None where it names none.

    Another version of Matplotlib draws the same numbers with other bytes: this says whether they are the same.
    """
    found = re.search(re.escape(_DRAWN.encode()) + rb"([0-9a-f]{64})", drawn)
    return found[1].decode() if found else None
