"""Membrane potentials without and under attack, and the spikes that flip (TGO, Fig. 1)."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bench.evidence.neurons import LayerTraces, neuron_traces
from bench.figures.style import caption, new_figure, spread_out, styled
from bench.figures.subjects import Subject

_CALM, _FLIPPED = "#9a9aa5", "#D55E00"
_MOST = 4


def measure(shown: Sequence[Subject]) -> dict[str, tuple[LayerTraces, ...]]:
    """Traces of every layer for the first image, by network."""
    return {
        subject.name: neuron_traces(subject.model, subject.x[:1], subject.attacked()[:1], subject.probe)
        for subject in shown
    }


def draw(found: Mapping[str, Sequence[LayerTraces]], about: str) -> Figure:
    """A row for each network, a panel for each of at most four layers; neurons whose spikes flip are red."""
    names = list(found)
    kept = {name: [layers[i] for i in spread_out(len(layers), _MOST)] for name, layers in found.items()}
    columns = max(map(len, kept.values()))
    with styled():
        figure = new_figure(2.4 * columns, 2.2 * len(names) + 0.9)
        grid = figure.subplots(len(names), columns, squeeze=False, sharex=True)
        for row, name in enumerate(names):
            for axes, layer in zip(grid[row], kept[name], strict=False):
                steps = range(1, len(layer.shown[0].clean) + 1)
                for neuron in sorted(layer.shown, key=lambda neuron: neuron.flips):
                    colour, width = (_FLIPPED, 1.1) if neuron.flips else (_CALM, 0.6)
                    axes.plot(steps, neuron.attacked, color=colour, lw=width)
                    axes.plot(steps, neuron.clean, color=colour, lw=width, ls=":")
                    pairs = zip(steps, neuron.attacked, neuron.clean_spikes, neuron.attacked_spikes, strict=True)
                    turned = [(step, v) for step, v, fired, fires in pairs if fired != fires]
                    axes.plot(
                        *zip(*turned, strict=True) if turned else ((), ()), ls="", marker="o", ms=2.5, color=colour
                    )
                axes.axhline(layer.v_threshold, color="#000000", lw=0.8, ls="--")
                shown = sum(neuron.flips for neuron in layer.shown)
                share = 100 * layer.flipped / layer.neurons
                counted = f"{share:.1f}% flip, {shown} of {len(layer.shown)} shown"
                axes.set_title(f"{name}, {layer.layer}\n{counted}", loc="left")
                axes.set_xticks(list(steps))
            grid[row, 0].set_ylabel("membrane potential V")
        for axes in grid[-1]:
            axes.set_xlabel("time step")
        caption(figure, f"{sentence(found)} {about}", 50 * columns)
    return figure


def sentence(found: Mapping[str, Sequence[LayerTraces]]) -> str:
    """How the panels are to be read, and how near the threshold the flipping neurons were."""
    parts = []
    most = max(map(len, found.values()))
    some = f" {_MOST} of {most} layers are drawn, all are counted." if most > _MOST else ""
    for name, layers in found.items():
        flipped = sum(layer.flipped for layer in layers)
        total = sum(layer.neurons for layer in layers)
        near = _mean([(layer.flipped_distance, layer.flipped) for layer in layers])
        far = _mean([(layer.kept_distance, layer.neurons - layer.flipped) for layer in layers])
        parts.append(f"{name} {flipped} of {total} (distance {near} against {far} of the others)")
    return (
        "Solid: under attack, dotted: without; red: neurons with a spike that flips, dots: the steps at which it "
        f"does; dashed: threshold.{some} Test image "
        f"{next(iter(found.values()))[0].image}; neurons at even ranks of their distance to the threshold without "
        "attack. "
        f"Neurons that flip: {'; '.join(parts)}."
    )


def _mean(values: Sequence[tuple[float | None, int]]) -> str:
    known = [(value, count) for value, count in values if value is not None and count]
    total = sum(count for _, count in known)
    return f"{sum(value * count for value, count in known) / total:.2f}" if total else "-"
