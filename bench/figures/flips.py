"""Membrane potentials without and under attack, and the spikes that flip (TGO, Fig. 1)."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bench.evidence.neurons import LayerTraces, neuron_traces
from bench.figures.style import caption, new_figure, styled
from bench.figures.subjects import Subject

_CALM, _FLIPPED = "#9a9aa5", "#D55E00"


def measure(shown: Sequence[Subject]) -> dict[str, tuple[LayerTraces, ...]]:
    """Traces of every layer for the first image, by network."""
    return {
        subject.name: neuron_traces(subject.model, subject.x[:1], subject.attacked()[:1], subject.probe)
        for subject in shown
    }


def draw(found: Mapping[str, Sequence[LayerTraces]], about: str) -> Figure:
    """A row for each network, a panel for each layer; neurons whose spikes flip are red."""
    names = list(found)
    columns = max(len(layers) for layers in found.values())
    with styled():
        figure = new_figure(2.4 * columns, 2.2 * len(names) + 0.9)
        grid = figure.subplots(len(names), columns, squeeze=False, sharex=True)
        for row, name in enumerate(names):
            for axes, layer in zip(grid[row], found[name], strict=False):
                steps = range(1, len(layer.shown[0].clean) + 1)
                for neuron in sorted(layer.shown, key=lambda neuron: neuron.flips):
                    colour, width = (_FLIPPED, 1.1) if neuron.flips else (_CALM, 0.6)
                    axes.plot(steps, neuron.attacked, color=colour, lw=width)
                    axes.plot(steps, neuron.clean, color=colour, lw=width, ls=":")
                axes.axhline(layer.v_threshold, color="#000000", lw=0.8, ls="--")
                shown = sum(neuron.flips for neuron in layer.shown)
                share = 100 * layer.flipped / layer.neurons
                counted = f"{share:.1f}% flip, {shown} of {len(layer.shown)} shown"
                axes.set_title(f"{name}, {layer.layer}\n{counted}", loc="left")
                axes.set_xticks(list(steps))
            grid[row, 0].set_ylabel("potential V")
        for axes in grid[-1]:
            axes.set_xlabel("time step")
        caption(figure, f"{sentence(found)} {about}", 50 * columns)
    return figure


def sentence(found: Mapping[str, Sequence[LayerTraces]]) -> str:
    """How the panels are to be read, and how near the threshold the flipping neurons were."""
    parts = []
    for name, layers in found.items():
        flipped = sum(layer.flipped for layer in layers)
        total = sum(layer.neurons for layer in layers)
        near = _mean([(layer.flipped_distance, layer.flipped) for layer in layers])
        far = _mean([(layer.kept_distance, layer.neurons - layer.flipped) for layer in layers])
        parts.append(f"{name} {flipped} of {total} (distance {near} against {far} of the others)")
    return (
        f"Solid: under attack, dotted: without; red: neurons with a spike that flips; dashed: threshold. Image "
        f"{next(iter(found.values()))[0].image}; neurons at even ranks of their distance to the threshold without "
        "attack. "
        f"Neurons that flip: {'; '.join(parts)}."
    )


def _mean(values: Sequence[tuple[float | None, int]]) -> str:
    known = [(value, count) for value, count in values if value is not None and count]
    total = sum(count for _, count in known)
    return f"{sum(value * count for value, count in known) / total:.2f}" if total else "-"
