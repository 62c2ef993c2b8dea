"""Samples of event data without and under attack: a picture of several, an animation of one."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray
from PIL import Image

from bench.figures.style import COLOURS, caption, new_figure, styled
from bench.figures.views import Counts, View

ON, OFF, BOTH = COLOURS[0], COLOURS[1], "#6A6859"
ADDED, REMOVED, MOVED = COLOURS[2], COLOURS[6], COLOURS[3]
MORE, LESS = COLOURS[2], COLOURS[3]
GROUND = "#F2F2F2"
_MARKS = {"added": ("+", ADDED), "removed": ("x", REMOVED), "moved": ("o", MOVED)}
_WIDTH, _ROW = 7.6, 1.95
_FRAME_MS, _LOOP_MS, _LAST_MS = 140, 3000, 900
_SHADES, _DPI = 128, 130
_FEW = 300


def draw_samples(views: Sequence[View], titles: Sequence[str], about: str) -> Figure:
    """A row for each sample: all its clean events, all its attacked events, what changed where, and when.

    Args:
        views: of the samples.
        titles: a line above each row.
        about: what cell it is, for the caption.
    """
    with styled():
        figure = new_figure(_WIDTH, _ROW * len(views) + 0.75)
        rows = figure.subfigures(len(views), 1, squeeze=False)[:, 0]
        for row, view, title in zip(rows, views, titles, strict=True):
            row.suptitle(textwrap.fill(title, 120), fontsize=8, x=0.01, ha="left")
            panels = row.subplots(1, 4, width_ratios=(1, 1, 1, 1.25))
            _ground(panels[:3], view)
            _show(panels, view, slice(None), _full(view))
            _timeline(panels[3], view)
        whole = all(view.whole for view in views)
        figure.legend(handles=_legend(views), loc="outside upper left", ncols=6, fontsize=7)
        caption(figure, f"{_sentence(whole)} {about}", 150)
    return figure


def animate_sample(view: View, title: str) -> bytes:
    """A GIF of one sample: each frame shows the events of one window, and where on the time line it is."""
    with styled():
        figure = new_figure(6.4, 3.3)
        figure.suptitle(textwrap.fill(title, 100), fontsize=8, x=0.01, ha="left")
        grid = figure.add_gridspec(2, 3, height_ratios=(3.4, 1))
        panels: list[Axes] = [figure.add_subplot(grid[0, column]) for column in range(3)]
        line = figure.add_subplot(grid[1, :])
        figure.legend(handles=_legend([view]), loc="outside lower center", ncols=6, fontsize=7)
        _timeline(line, view)
        _ground(panels, view)
        cursor = line.axvspan(view.edges[0], view.edges[1], color="#000000", alpha=0.18, lw=0)
        pictures, full = [], _full(view, by_window=True)
        layout = True
        for window in range(len(view.clean)):
            for axes in panels:
                axes.images[0].remove() if axes.images else None
                for mark in list(axes.collections):
                    mark.remove()
            _show(panels, view, slice(window, window + 1), full)
            cursor.set_x(view.edges[window])
            cursor.set_width(view.edges[window + 1] - view.edges[window])
            panels[1].set_title(_when(view, window), fontsize=8)
            pictures.append(_picture(figure))
            if layout:
                # The place of things is settled once, so that nothing trembles.
                figure.set_layout_engine("none")
                layout = False
    return _gif(pictures)


def blend(first: Counts, second: Counts, full: float, colours: tuple[str, str]) -> NDArray[np.uint8]:
    """Two counts a pixel as one colour: whose share is larger by its hue, how many there are by its strength.

    Args:
        first, second: counts [H, W], not negative.
        full: the sum that has the strongest colour, more than 0.
        colours: of the two.

    Returns:
        RGB, [H, W, 3].
    """
    total = first + second
    share = np.divide(first, total, out=np.zeros_like(total), where=total > 0)[..., None]
    # Long recordings have both at most pixels; what there is more of must still be seen.
    share = 0.5 + 0.5 * np.sign(2 * share - 1) * np.sqrt(np.abs(2 * share - 1))
    # Faint single events must still be seen beside many.
    strength = np.where(total > 0, 0.2 + 0.8 * np.sqrt(np.minimum(total / full, 1)), 0)[..., None]
    colour = share * _rgb(colours[0]) + (1 - share) * _rgb(colours[1])
    mixed = (1 - strength) * _rgb(GROUND) + strength * colour
    rounded: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return rounded


def _show(panels: Any, view: View, window: slice, full: "_Full") -> None:
    for axes, counts in zip(panels[:2], (view.clean, view.attacked), strict=True):
        some = counts[window].sum(0)
        axes.imshow(blend(some[1], some[0], full.events, (ON, OFF)), interpolation="nearest")
    more, less, moved = (part[window].sum(0) for part in (view.added, view.removed, view.moved))
    if not view.whole:
        # Sums of small changes everywhere: marks would hide each other.
        panels[2].imshow(blend(more, less, full.change, (MORE, LESS)), interpolation="nearest")
        return
    there = np.minimum(view.clean[window].sum((0, 1)), 1)[..., None]
    backdrop = (1 - there) * _rgb(GROUND) + there * _rgb("#CFCFCF")
    panels[2].imshow(backdrop.astype(np.uint8), interpolation="nearest")
    # Where marks are many they must not hide each other.
    slim = float(np.clip((_FEW / max(int(np.count_nonzero(more + less + moved)), 1)) ** 0.5, 0.4, 1))
    for (mark, colour), counts in zip(_MARKS.values(), (more, less, moved), strict=True):
        y, x = np.nonzero(counts)
        size = _mark_size(view) * slim**2 * np.sqrt(np.minimum(counts[y, x], 4))
        style = {"facecolors": "none", "edgecolors": colour} if mark == "o" else {"color": colour}
        panels[2].scatter(x, y, s=size, marker=mark, linewidths=0.9 * slim, clip_on=True, **style)


def _ground(panels: Any, view: View) -> None:
    for axes, name in zip(panels, ("clean", "attacked", "difference"), strict=True):
        axes.set(xticks=[], yticks=[], xlabel=name)
        axes.set_xlim(-0.5, view.clean.shape[3] - 0.5)
        axes.set_ylim(view.clean.shape[2] - 0.5, -0.5)
        axes.set_aspect("equal")
        for spine in axes.spines.values():
            spine.set(visible=True, color="#BBBBBB", linewidth=0.6)


def _timeline(axes: Axes, view: View) -> None:
    """When events happened, and above and below it what was added and removed, on a scale of its own."""
    edges, widths = view.edges[:-1], np.diff(view.edges)
    up, down = (ADDED, REMOVED) if view.whole else (MORE, LESS)
    total = view.clean.sum((1, 2, 3))
    more, moved, less = (part.sum((1, 2)) for part in (view.added, view.moved, view.removed))
    most = max(float((more + moved).max()), float(less.max()), 1e-9)
    axes.fill_between(view.edges, np.append(total, total[-1]) / _most(total), step="post", color="#DDDDDD", lw=0)
    axes.bar(edges, more / most, widths, align="edge", color=up, lw=0)
    axes.bar(edges, moved / most, widths, bottom=more / most, align="edge", color=MOVED, lw=0)
    axes.bar(edges, -less / most, widths, align="edge", color=down, lw=0)
    axes.axhline(0, color="#888888", lw=0.6)
    axes.set(xlabel=_axis(view), xlim=(edges[0], view.edges[-1]), ylim=(-1.08, 1.08))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_yticks([-1, 0, 1], [_count(most), "0", _count(most)], fontsize=6.5)
    axes.set_ylabel("changes" if view.whole else "counts", fontsize=7, labelpad=1)


def _legend(views: Sequence[View]) -> list[Any]:
    """Of what there is in some view."""
    patches: list[Any] = [Patch(color=c, label=name) for name, c in (("ON", ON), ("OFF", OFF), ("both", BOTH))]
    if not all(view.whole for view in views):
        return [*patches, Patch(color=MORE, label="more"), Patch(color=LESS, label="less")]
    for name, (mark, colour) in _MARKS.items():
        if any(getattr(view, name).any() for view in views):
            face = "none" if mark == "o" else colour
            patches.append(Line2D([], [], marker=mark, color=colour, markerfacecolor=face, lw=0, label=name))
    return patches


def _sentence(whole: bool) -> str:
    time = "Over time: clean events in grey, each row on its own scale; above 0 what came, below what went."
    if whole:
        return f"Events of the whole recording. Difference: where there were events in grey, and every change. {time}"
    return f"Counts of all time steps. Difference: sums of what became more and less. {time}"


def _axis(view: View) -> str:
    return view.unit if view.unit == "time step" else f"time ({view.unit})"


def _when(view: View, window: int) -> str:
    if view.unit == "time step":
        return f"step {window + 1} of {len(view.clean)}"
    return f"{view.edges[window]:,.0f} to {view.edges[window + 1]:,.0f} {view.unit}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 and value == round(value) else f"{value:.2g}"


class _Full(NamedTuple):
    """What has the strongest colour: both polarities at a pixel, and all that changed there."""

    events: float
    change: float


def _full(view: View, by_window: bool = False) -> _Full:
    """So much that few pixels have more, in a window or in all."""

    def busy(*stacks: Counts) -> float:
        sums = [stack if by_window else stack.sum(0) for stack in stacks]
        values = np.concatenate([values[values > 0] for values in sums])
        return max(float(np.quantile(values, 0.99)), 1e-9) if values.size else 1.0

    return _Full(busy(view.clean.sum(1), view.attacked.sum(1)), busy(view.added + view.removed))


def _most(values: Counts) -> float:
    return max(float(values.max(initial=0)), 1e-9)


def _mark_size(view: View) -> float:
    """Area in square points of a mark that is as large as a pixel, or as what can still be seen."""
    return float(np.clip(95 / max(view.clean.shape[2:]), 2.2, 6) ** 2)


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.float64)


def _picture(figure: Figure | SubFigure) -> Image.Image:
    canvas: Any = figure.canvas
    canvas.figure.set_dpi(_DPI)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _gif(pictures: Sequence[Image.Image]) -> bytes:
    """One palette for all, so that what stands still costs nothing and does not flicker."""
    sheet = Image.new("RGB", (pictures[0].width, pictures[0].height * len(pictures)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (0, number * picture.height))
    palette = sheet.quantize(_SHADES, dither=Image.Dither.NONE)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    buffer = io.BytesIO()
    times = [max(_FRAME_MS, _LOOP_MS // len(frames))] * (len(frames) - 1) + [_LAST_MS]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return buffer.getvalue()
