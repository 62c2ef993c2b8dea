"""How plans and stores grow: a record as Markdown."""

import math
from collections.abc import Sequence

from bench.proposal import CHUNK
from bench.scale.record import Measure, Record, Stage

_MANY = 100_000


def markdown(record: Record) -> list[str]:
    """The lines of a page about one run: how every cost grows, what the rows weigh, and how fast they are written."""
    if "layouts" in record.setup:
        return _layouts(record)
    last = record.stages[-1]
    loads = " to ".join(f"{load[0]:.2f}" for load in record.load if load) or "unknown"
    lines = [
        f"{record.setup['engine']}; {record.device}, load {loads}; {record.started}, {record.seconds / 60:.0f} min.",
        f"`{record.command}`",
        "",
        *_table(("", *(f"{stage.cells:,} cells" for stage in record.stages)), _growth(record.stages)),
        "",
        f"{last.n:,} images a cell. Times are the least of all tries. Commands are timed in a running process, without "
        "what imports take.",
    ]
    weights = _weights(last)
    if weights:
        lines += ["", *weights]
    return lines


def comparison(before: Record, after: Record) -> list[str]:
    """The lines of a table of two runs at the largest size that both have."""
    sizes = {stage.cells: stage for stage in before.stages}
    stage = max((stage for stage in after.stages if stage.cells in sizes), key=lambda stage: stage.cells)
    held = sizes[stage.cells]
    rows = [
        (name, _time(held.measures[name]), _time(measure), _ratio(held.measures[name], measure))
        for name, measure in stage.measures.items()
        if name in held.measures and name not in ("fill",) and "at once" not in name and "empty store" not in name
    ]
    return _table((f"{after.setup['engine']}, {stage.cells:,} cells", "before", "after", "before/after"), rows)


def _layouts(record: Record) -> list[str]:
    (stage,) = record.stages
    rows = [
        (
            name, f"{measure.about['bytes a chunk']:,.0f} B", _time(measure),
            f"{1000 * measure.about['read a cell']:.2f} ms",
        )
        for name, measure in stage.measures.items()
    ]  # fmt: skip
    heads = (f"{stage.chunks:,} chunks, {stage.n:,} images a cell", "a chunk", "write all", "read a cell's")
    return [
        f"{record.setup['engine']}; {record.device}; {record.started}.",
        f"`{record.command}`",
        "",
        *_table(heads, rows),
    ]


def _growth(stages: Sequence[Stage]) -> list[tuple[str, ...]]:
    names = dict.fromkeys(name for stage in stages for name in stage.measures)
    rows = []
    for name in names:
        if name == "fill" or "at once" in name:
            continue
        cells = [_time(stage.measures[name]) if name in stage.measures else "" for stage in stages]
        rows.append((name, *cells))
    memory = [
        f"{sum(stage.measures[name].about.get('bytes', 0) for name in ('plan', 'keys')) / stage.cells:,.0f} B"
        # Below, what is loaded with the first plan outweighs it.
        if stage.cells >= _MANY
        else ""
        for stage in stages
    ]
    rows.insert(2, ("memory a planned cell, with its key", *memory))
    return rows


def _weights(stage: Stage) -> list[str]:
    """What rows weigh, and what all outcomes of such a plan would."""
    held = stage.measures.get("fill")
    if held is None or not held.about.get("chunks"):
        return []
    before, between, after = held.about["bytes"]
    cell, chunk = (between - before) / held.about["cells"], (after - between) / held.about["chunks"]
    parts = math.ceil(stage.n / CHUNK)
    everything = stage.cells * (cell + parts * chunk)
    lines = [
        f"A cell takes {cell:,.0f} B and a chunk of {CHUNK} images {chunk:,.0f} B, indices included; {stage.chunks:,} "
        f"chunks were written. By that, all {stage.cells * parts:,} chunks of {stage.cells:,} cells take "
        f"{everything / 1e9:,.0f} GB (computed)."
    ]
    rates = [measure for name, measure in stage.measures.items() if "at once" in name]
    if rates:
        lines += ["", *_table(("writers", "chunks/s", "longest wait"), [_rate(measure) for measure in rates])]
        best = max(float(measure.about["a second"]) for measure in rates)
        lines += [
            "",
            f"At {best:,.0f} chunks a second {stage.cells * parts:,} chunks take {_span(stage, parts, best)}.",
        ]
    return lines


def _span(stage: Stage, parts: int, rate: float) -> str:
    return f"{stage.cells * parts / rate / 3600:,.0f} h"


def _rate(measure: Measure) -> tuple[str, ...]:
    return str(measure.about["writers"]), f"{measure.about['a second']:,.0f}", f"{measure.about['longest']:.2f} s"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        "| --- |" + " ---: |" * (len(heads) - 1),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _time(measure: Measure) -> str:
    if not measure.seconds:
        return "refused" if measure.error else "-"
    least = measure.least
    if least >= 1:
        return f"{least:,.1f} s"
    return f"{1000 * least:,.1f} ms" if least < 0.1 else f"{1000 * least:,.0f} ms"


def _ratio(before: Measure, after: Measure) -> str:
    if not (before.seconds and after.seconds):
        return "-"
    return f"{before.least / after.least:,.1f}"
