"""How the cost of an attack grows: with time steps, PGD steps, images at once, and cells of one trajectory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.perf.child import Child
from bench.perf.record import Record, Section
from bench.perf.sample import Entry, Sample, take_turns
from bench.perf.subject import Subject

_REPEATS = 3


@dataclass(frozen=True)
class Axis:
    """One thing that grows.

    Attributes:
        title: of its panel.
        axis: of x.
        points: its values.
        work: a name in `bench.perf.work.WORK`.
        arguments: from a point to that work's.
        of_time: whether a point is the number of time steps.
    """

    title: str
    axis: str
    points: tuple[int, ...]
    work: str
    arguments: Callable[[int], dict[str, Any]]
    of_time: bool = False


def _steps(batch: int, steps: int) -> dict[str, Any]:
    return {"name": "ours", "state": "tuned", "batch": batch, "steps": steps}


_CELLS = {1: [40], 2: [20, 40], 4: [7, 10, 20, 40]}
AXES: Mapping[str, Axis] = {
    "T": Axis("Time steps (batch 8, 2 PGD steps)", "T", (1, 2, 4, 8), "step", lambda _: _steps(8, 2), of_time=True),
    "steps": Axis("PGD steps (batch 4)", "PGD steps", (10, 20, 40), "step", lambda point: _steps(4, point)),
    "batch": Axis(
        "Images at once (2 PGD steps)", "images", (4, 8, 16, 32, 64, 128), "step", lambda point: _steps(point, 2)
    ),
    "cells": Axis(
        "Cells of one PGD-40 trajectory (batch 4)",
        "cells",
        (1, 2, 4),
        "cells",
        lambda point: {"steps": _CELLS[point], "batch": 4},
    ),
}


def measure_growth(
    subject: Subject,
    record: Record,
    threads: int,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda _: None,
    axes: Mapping[str, Axis] = AXES,
) -> None:
    """Measure every point of every axis in a fresh process: peak memory by the first run, time by the median of more.

    Args:
        subject: what is attacked.
        record: filled as points are finished.
        threads, device: of the processes.
        tell: called with what begins.
        axes: what grows.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "subject.safetensors"
        subject.save(path)
        for name, axis in axes.items():
            section = record.sections.setdefault(name, Section({"title": axis.title, "axis": axis.axis}))
            for point in axis.points:
                tell(f"{axis.axis} {point}")
                entry = Entry(str(point), "tuned")
                section.entries.append(entry)

                def once(axis: Axis = axis, point: int = point) -> Sample:
                    given = axis.arguments(point)
                    with Child(path, "tuned", threads, device, point if axis.of_time else 0) as child:
                        first = child.ask(axis.work, watch=True, **given)
                        runs = sorted((child.ask(axis.work, **given) for _ in range(_REPEATS)), key=lambda s: s.seconds)
                    middle = runs[_REPEATS // 2]
                    extra = first.extra | {"runs": [run.seconds for run in runs]}
                    return Sample(middle.seconds, middle.work, middle.forwards, middle.backwards, extra)

                take_turns([entry], [once], 1)
