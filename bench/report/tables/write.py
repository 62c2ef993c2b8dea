"""A filled table for people and for programs."""

import math

import pandas as pd

from bench.frames import written_frame
from bench.report.doubt import MARK
from bench.report.sheet import MISSING, Piece, Sheet, write_sheet
from bench.report.tables import layout
from bench.report.tables.fill import Filled, Value


def write_table(filled: Filled, form: str, *, with_published: bool = False) -> str:
    """As `text`, `md`, `latex`, `html`; or every value as a line of `csv` or `json`."""
    if form in ("csv", "json"):
        return written_frame(table_frame(filled), form)
    return write_sheet(table_sheet(filled, with_published=with_published), form)


def table_sheet(filled: Filled, *, with_published: bool = False) -> Sheet:
    """The table as a reader sees it.

    Args:
        with_published: set the paper's value and the difference under each measured one.
    """
    rows: list[tuple[Piece, ...]] = []
    breaks, suspect = set[int](), False
    several = len(filled.table.blocks) > 1
    for block, model, lines in zip(filled.table.blocks, filled.models, filled.values, strict=True):
        before = None
        architecture = block.architecture if model == block.model else f"{model} for {block.architecture}"
        for row, line in zip(block.rows, lines, strict=True):
            if row.strategy != before:
                breaks.add(len(rows))
            before = row.strategy
            names = ((architecture,) if several else ()) + (row.strategy, row.method)
            rows.append((*map(Piece, names), *(_piece(value, with_published) for value in line)))
            suspect |= any(value.suspect for value in line)
    heads = (("Model",) if several else ()) + ("Training", "Method")
    notes = [f"{MARK} suspect, perhaps too high; see bench show KEY."] if suspect else []
    if with_published:
        notes.append(
            "Second line: the value printed in the TGO paper, and measured minus printed, in points. Bold or * marks "
            "the best measured value of each training, not a significant difference: see bench compare."
        )
    else:
        notes.append("Bold or *: the best measured value of each training; whether it differs: bench compare.")
    return Sheet(
        (*heads, *(column.head for column in filled.table.columns)), tuple(rows), len(heads), frozenset(breaks),
        caption(filled), tuple(notes), filled.table.name,
    )  # fmt: skip


def _piece(value: Value, with_published: bool) -> Piece:
    below = ""
    if with_published and value.published is not None:
        below = f"paper {100 * value.published:.1f}"
        if value.difference is not None:
            below += f", {100 * value.difference:+.1f}"
    if value.measured is None:
        return Piece(MISSING, below=below)
    mean = value.measured
    small = "" if math.isnan(mean.low) else f"[{100 * mean.low:.1f}, {100 * mean.high:.1f}]"
    return Piece(f"{100 * mean.value:.1f}", small, below, value.best, MARK if value.suspect else "")


def caption(filled: Filled) -> str:
    """What is shown, and every condition that is not the paper's."""
    iterate = {"last": "last iterate", "any": "any iterate: right under the last and under the strongest one visited"}
    seeds = sorted({len(value.seeds) for block in filled.values for line in block for value in line if value.seeds})
    interval = "95% Wilson interval" if seeds[:1] == [1] else ""
    if seeds[-1:] > [1]:
        interval += (
            "; where several seeds are stored, " if interval else ""
        ) + "mean over training seeds with t-interval"
    parts = [f"{filled.table.title}. Percent, {interval}; {iterate[filled.iterate]}."]
    differs = differences(filled)
    if differs:
        parts.append(f"NOT the paper's conditions: {'; '.join(differs)}.")
    if filled.left_out:
        parts.append(f"{filled.left_out} invalid or otherwise measured cells are left out.")
    return " ".join(parts)


def differences(filled: Filled) -> list[str]:
    """Every condition under which the shown cells were measured that is not the paper's."""
    used, table = filled.used, filled.table
    models = [block.model for block in table.blocks]
    seeds = sorted({len(value.seeds) for block in filled.values for line in block for value in line if value.seeds})
    checks = (
        ("dataset", {filled.dataset}, table.dataset, table.published_dataset),
        ("model", set(used["model"]) - set(models), None, " and ".join(block.architecture for block in table.blocks)),
        ("test images", set(used["n"]), table.images, f"{table.images:,}"),
        ("eps", set(used["eps_text"]), layout.EPS, layout.EPS),
        ("T", set(used["T"]), layout.T, str(layout.T)),
        ("decay", set(used["decay"]), layout.DECAY, str(layout.DECAY)),
        ("epochs", set(used["epochs"].dropna().astype(int)), layout.EPOCHS, str(layout.EPOCHS)),
        ("training images", {int(n) for n in used["train_size"].dropna() if n}, None, "all"),
        ("training seeds for a value", set(seeds), layout.SEEDS, str(layout.SEEDS)),
    )  # fmt: skip
    found = []
    for name, values, wanted, printed in checks:
        if values and values != {wanted}:
            shown = ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in sorted(values))
            found.append(f"{name} {shown} (paper: {printed})")
    if used["epochs"].isna().any():
        found.append("weights that were given, not trained here")
    return found


def table_frame(filled: Filled) -> pd.DataFrame:
    """One row for each place of the table; rates are shares in [0, 1].

    `per_seed` and `keys` list the values and the cells of each training seed, in the order of `seeds`.
    """
    lines = []
    for block, name, rows in zip(filled.table.blocks, filled.models, filled.values, strict=True):
        for row, values in zip(block.rows, rows, strict=True):
            for column, value in zip(filled.table.columns, values, strict=True):
                mean = value.measured
                lines.append(
                    {
                        "table": filled.table.name, "dataset": filled.dataset, "model": name,
                        "strategy": row.strategy, "method": row.method, "defense": row.defense,
                        "attack": column.attack or "clean", "iterate": filled.iterate if column.attack else None,
                        "measured": mean.value if mean else None,
                        "low": mean.low if mean else None, "high": mean.high if mean else None,
                        "n": value.n or None, "draws": value.draws or None,
                        "seeds": " ".join(map(str, value.seeds)) or None,
                        "per_seed": " ".join(f"{v:.6f}" for v in mean.values) if mean else None,
                        "suspect": value.suspect, "best": value.best, "published": value.published,
                        "difference": value.difference, "keys": " ".join(value.keys) or None,
                    }
                )  # fmt: skip
    return pd.DataFrame(lines)
