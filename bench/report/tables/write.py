"""A filled table for people and for programs."""

import json
import math

import pandas as pd

from bench.frames import written_frame
from bench.report.doubt import MARK
from bench.report.formats import write_sheet
from bench.report.published import TGO
from bench.report.sheet import MISSING, Piece, Sheet
from bench.report.tables.caption import caption, seed_counts
from bench.report.tables.fill import Filled, Value
from bench.report.tables.layout import Column, Row


def write_table(filled: Filled, form: str, *, with_published: bool = False) -> str:
    """As `text`, `md`, `latex`, `html`; or every value as a line of `csv`, or an object of `json`."""
    if form == "csv":
        return written_frame(table_frame(filled), form)
    if form == "json":
        return json.dumps(_objects(table_frame(filled)), indent=1, ensure_ascii=False)
    sheet = table_sheet(filled, with_published=with_published, sign=_SIGNS.get(form, "Bold"), brief=form == "latex")
    return write_sheet(sheet, form)


_SIGNS = {"text": "*"}


def table_sheet(filled: Filled, *, with_published: bool = False, sign: str = "Bold", brief: bool = False) -> Sheet:
    """The table as a reader sees it.

    Args:
        with_published: set the paper's value and the difference under each measured one.
        sign: how the best values stand out.
        brief: whether to save width: on paper seven columns of full values are too small to read.
    """
    table, several = filled.table, len(filled.table.blocks) > 1
    rows: list[tuple[Piece, ...]] = []
    breaks, mixed = set[int](), len(seed_counts(filled)) > 1
    for block, model, values in zip(table.blocks, filled.models, filled.values, strict=True):
        architecture = block.architecture if model == block.model else f"{model} for {block.architecture}"
        lines = [
            (row, [_piece(value, with_published, mixed, brief) for value in line])
            for row, line in zip(block.rows, values, strict=True)
        ]
        before = None
        for names, strategy, pieces in _abreast(lines) if table.abreast else _below(lines):
            if strategy != before:
                breaks.add(len(rows))
            before = strategy
            rows.append((*map(Piece, ((architecture,) if several else ()) + names), *pieces))
    strategies = dict.fromkeys(row.strategy for block in table.blocks for row in block.rows)
    heads = [column.head for column in table.columns]
    words = (("Model",) if several else ()) + (("Method",) if table.abreast else ("Training", "Method"))
    numbers = [f"{strategy} {head}" for strategy in strategies for head in heads] if table.abreast else heads
    return Sheet(
        (*words, *numbers), tuple(rows), len(words), frozenset(breaks), caption(filled),
        tuple(_notes(filled, with_published, sign, brief)), table.name,
    )  # fmt: skip


_Line = tuple[Row, list[Piece]]


def _below(lines: list[_Line]) -> list[tuple[tuple[str, ...], str, list[Piece]]]:
    return [((row.strategy, row.method), row.strategy, pieces) for row, pieces in lines]


def _abreast(lines: list[_Line]) -> list[tuple[tuple[str, ...], str, list[Piece]]]:
    """One row for each method, the strategies beside each other."""
    of_method: dict[str, list[Piece]] = {}
    for row, pieces in lines:
        of_method.setdefault(row.method, []).extend(pieces)
    return [((method,), "", pieces) for method, pieces in of_method.items()]


def _piece(value: Value, with_published: bool, mixed: bool, brief: bool) -> Piece:
    below = ""
    if with_published and value.published is not None:
        below = value.published.text if brief else f"paper {value.published.text}"
        if value.difference is not None:
            change = f"{100 * value.difference:+.1f}"
            below += f" ({change})" if brief else f", {change}"
    if value.measured is None:
        return Piece(MISSING, below=below)
    mean = value.measured
    # Student's interval knows nothing of rates. What it leaves of [0, 1] covers as often.
    low, high = max(0.0, mean.low), min(1.0, mean.high)
    small = "" if math.isnan(mean.low) else f"[{100 * low:.1f}, {100 * high:.1f}]"
    small += f" ×{len(value.seeds)}" if mixed and len(value.seeds) > 1 else ""
    return Piece(f"{100 * mean.value:.1f}", small, below, value.best, MARK if value.suspect else "")


def _notes(filled: Filled, with_published: bool, sign: str, brief: bool) -> list[str]:
    notes = []
    if any(value.suspect for value in filled.places):
        notes.append(f"{MARK} suspect, perhaps too high; see bench show KEY.")
    if any(value.best for value in filled.places):
        notes.append(f"{sign}: the best measured value of each training; whether it really differs: bench compare.")
    if with_published:
        change = " (measured minus printed, in points)" if brief else ", and measured minus printed, in points"
        notes.append(f"Below each value: the one printed in {TGO}, {filled.table.source}{change}.")
        remarks = _remarks(filled)
        notes += [f"On the printed values: {'; '.join(remarks)}."] if remarks else []
    return notes


def _remarks(filled: Filled) -> list[str]:
    """What is odd about the printed values, each with the methods that it is about where that is not all."""
    methods: dict[str, None] = {}
    about: dict[str, dict[str, None]] = {}
    for block, lines in zip(filled.table.blocks, filled.values, strict=True):
        for row, line in zip(block.rows, lines, strict=True):
            methods[row.method] = None
            for value in line:
                for remark in value.published.remarks if value.published else ():
                    about.setdefault(remark, {})[row.method] = None
    return [
        remark if len(named) == len(methods) else f"{', '.join(named)}: {remark}" for remark, named in about.items()
    ]


def table_frame(filled: Filled) -> pd.DataFrame:
    """One row for each place of the table; rates are shares in [0, 1].

    `per_seed` and `keys` list the values and the cells of each training seed, in the order of `seeds`, with blanks
    between them. `published` is the number of the paper, `remarks` what is odd about it.
    """
    budgets = dict(zip(filled.used["key"], filled.used["eps_text"], strict=True))
    lines = [
        _place(filled, name, row, column, value, budgets)
        for block, name, rows in zip(filled.table.blocks, filled.models, filled.values, strict=True)
        for row, values in zip(block.rows, rows, strict=True)
        for column, value in zip(filled.table.columns, values, strict=True)
    ]
    # A column of whole numbers stays one where values are missing.
    return pd.DataFrame(lines).astype({"n": "Int64", "draws": "Int64"})


def _place(
    filled: Filled, model: str, row: Row, column: Column, value: Value, budgets: dict[str, str]
) -> dict[str, object]:
    mean, printed = value.measured, value.published
    return {
        "table": filled.table.name, "dataset": filled.dataset, "model": model,
        "strategy": row.strategy, "method": row.method, "defense": row.defense,
        "attack": column.attack or "clean", "iterate": filled.iterate if column.attack else None,
        "eps": budgets[value.keys[0]] if value.keys and column.attack else None,
        "measured": mean.value if mean else None,
        "low": mean.low if mean else None, "high": mean.high if mean else None,
        "n": value.n or None, "draws": value.draws or None,
        "seeds": " ".join(map(str, value.seeds)) or None,
        "per_seed": " ".join(f"{v:.6f}" for v in mean.values) if mean else None,
        "suspect": value.suspect, "best": value.best,
        "published": printed.value if printed else None, "difference": value.difference,
        "remarks": "; ".join(printed.remarks) or None if printed else None,
        "keys": " ".join(value.keys) or None,
    }  # fmt: skip


def _objects(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Lists where a line of text joins them; null where a value is missing."""
    read = {"seeds": int, "per_seed": float, "keys": str}
    objects = json.loads(written_frame(frame, "json"))
    for line in objects:
        for name, kind in read.items():
            line[name] = [kind(part) for part in (line[name] or "").split()]
    return list(objects)
