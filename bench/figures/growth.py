"""How the cost of an attack grows: time and peak memory against four things."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.figures.style import COLOURS, MARKERS, caption, new_figure, styled
from bench.perf.record import Record, Section
from bench.report.text import counted

_PANELS = 4
_MIB = 2**20


def draw_growth(record: Record) -> Figure:
    """Four panels, time on the left axis of each and memory on the right.

    Raises:
        BenchError: the record has no growth.
    """
    sections = [section for section in record.sections.values() if "axis" in section.about]
    if not sections:
        raise BenchError("that file has no cost growth; measure it with bench perf --growth")
    with styled():
        figure = new_figure(6.4, 5.0)
        handles: list[Any] = []
        for number, section in enumerate(sections[:_PANELS]):
            handles = _panel(figure.add_subplot(2, 2, number + 1), section)
        figure.legend(handles=handles, loc="outside upper left", ncols=3)
        setup = record.setup
        machine = f"{record.provenance['device']}, {counted(setup['threads'], 'thread')}"
        text = (
            f"{setup['model']}, T {setup['T']} where it does not vary, float32; {machine}; {record.started[:10]}. "
            "Median of three runs after a first one; memory: what a fresh process needs at most beyond what it held."
        )
        caption(figure, text, 135)
    return figure


def _labels(x: list[int]) -> list[str]:
    """A label for each place that has room for one."""
    labels, last = [], -float("inf")
    for value in x:
        fits = value - last >= 0.06 * max(x)
        labels.append(str(value) if fits else "")
        last = value if fits else last
    return labels


def _panel(axes: Axes, section: Section) -> list[Any]:
    entries = [entry for entry in section.entries if entry.samples]
    x = [int(entry.name) for entry in entries]
    seconds = [entry.samples[-1].seconds for entry in entries]
    memory = [entry.samples[-1].extra["peak_bytes"] / _MIB for entry in entries]
    style: Any = {"lw": 1.4, "ms": 4}
    handles = axes.plot(x, seconds, color=COLOURS[0], marker=MARKERS[0], label="time (left)", **style)
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    handles += right.plot(x, memory, color=COLOURS[1], marker=MARKERS[1], ls="--", label="peak memory (right)", **style)
    if x:
        ends = [0.0, max(x)]
        line = [seconds[0] * end / x[0] for end in ends]
        handles += axes.plot(ends, line, color="#999999", lw=0.8, ls=":", label="time, if proportional to the first")
        axes.set_xlim(0, 1.05 * max(x))
        axes.set_xticks(x, _labels(x))
    axes.set_ylim(0, 1.1 * max([*seconds, 1e-9]))
    right.set_ylim(0, 1.1 * max([*memory, 1e-9]))
    axes.set_title(section.about["title"], loc="left")
    axes.set_xlabel(section.about["axis"])
    axes.set_ylabel("seconds")
    right.set_ylabel("MiB")
    axes.grid(axis="y", lw=0.4, alpha=0.5)
    return handles
