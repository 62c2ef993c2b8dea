"""Membrane potentials around the threshold (TGO, Fig. 4, first half)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bench.evidence.histogram import Histogram, membrane_histograms
from bench.figures.style import COLOURS, DASHES, caption, new_figure, spread_out, styled
from bench.figures.subjects import Subject

DELTA = 0.5
_MOST = 8


def measure(shown: Sequence[Subject], delta: float = DELTA) -> dict[str, tuple[Histogram, ...]]:
    """Histograms by network; see `membrane_histograms`."""
    return {
        subject.name: membrane_histograms(subject.model, subject.x, subject.probe, delta) for subject in shown
    }  # fmt: skip


def draw(found: Mapping[str, Sequence[Histogram]], about: str, count: int, delta: float = DELTA) -> Figure:
    """One panel for all layers together and one for each of at most eight, the networks on top of each other."""
    names = list(found)
    layers = [histogram.layer for histogram in found[names[0]]]
    order = [len(layers) - 1, *spread_out(len(layers) - 1, _MOST)]
    columns = 2 if len(order) in (2, 4) else min(3, len(order))
    rows = -(-len(order) // columns)
    with styled():
        figure = new_figure(6.9, 1.9 * rows + 0.9)
        grid = figure.subplots(rows, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(order):
                axes.set_visible(False)
                continue
            axes.axvspan(-delta, delta, color="#000000", alpha=0.06, lw=0)
            axes.axvline(0, color="#444444", lw=0.8)
            shares = []
            for number, name in enumerate(names):
                histogram = found[name][order[place]]
                edges = np.asarray(histogram.edges)
                density = np.asarray(histogram.counts) / histogram.total / np.diff(edges)
                # The outermost bins hold everything beyond and would dwarf the rest.
                axes.stairs(density[1:-1], edges[1:-1], color=COLOURS[number], ls=DASHES[number], lw=1.2, label=name,
                            baseline=None)  # fmt: skip
                shares.append(f"{100 * histogram.near:.1f}%")
            axes.set_ylim(bottom=0)
            axes.set_title(f"{layers[order[place]]}\nnear: {' / '.join(shares)}", loc="left")
            axes.locator_params(axis="y", nbins=4)
            if place + columns >= len(order):
                axes.set_xlabel("V - threshold")
        for line in grid:
            line[0].set_ylabel("density")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(names))
        beyond = ", ".join(f"{name} {100 * _beyond(of[-1]):.1f}%" for name, of in found.items())
        some = f" {_MOST} of {len(layers) - 1} layers are drawn, all are counted." if len(layers) - 1 > _MOST else ""
        images = f"Potentials of all steps of {count} test images without attack, before noise and reset."
        text = f"{sentence(found, delta)} Beyond the axis: {beyond}.{some} {images} {about}"
        caption(figure, text, 140)
    return figure


def _beyond(histogram: Histogram) -> float:
    return (histogram.counts[0] + histogram.counts[-1]) / histogram.total


def sentence(found: Mapping[str, Sequence[Histogram]], delta: float = DELTA) -> str:
    """The share of potentials near the threshold, and how it differs from the first network's."""
    near = {name: histograms[-1].near for name, histograms in found.items()}
    first, *others = near
    text = f"Within {delta:g} of the threshold (shaded): {first} {100 * near[first]:.1f}%"
    for name in others:
        change = near[name] / near[first] - 1 if near[first] else float("nan")
        text += f", {name} {100 * near[name]:.1f}% ({100 * change:+.0f}%)"
    return f"{text}. The paper states -40% for TGO."
