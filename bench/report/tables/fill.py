"""Stored cells into the places of a paper's table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench.errors import BenchError
from bench.frames import rows_where
from bench.plan import without_eot
from bench.report.published import TGO, published
from bench.report.tables.layout import Block, Column, PaperTable, Row
from bench.statistics import SeedMean, over_seeds


@dataclass(frozen=True)
class Value:
    """What stands in one place.

    Attributes:
        measured: over seeds; for one seed the interval is Wilson's. None where nothing was measured.
        n, draws: images and scoring draws behind it.
        keys, seeds: of the cells.
        suspect: whether any of them is.
        best: the largest measured value among the rows of its strategy.
        published: the paper's value, a share; None where it prints none.
    """

    measured: SeedMean | None
    n: int = 0
    draws: int = 0
    keys: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    suspect: bool = False
    best: bool = False
    published: float | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published, a share."""
        if self.measured is None or self.published is None:
            return None
        return self.measured.value - self.published


@dataclass(frozen=True)
class Filled:
    """A table with its values.

    Attributes:
        table: its layout.
        dataset, models: what was measured instead of, or as, the paper's: our names; a model for each block.
        values: block -> row -> column.
        used: the cells that are shown, as rows of `cells_frame`.
        left_out: how many cells fitted a place that another took, or are invalid.
        iterate: `last` or `any`.
    """

    table: PaperTable
    dataset: str
    models: tuple[str, ...]
    values: tuple[tuple[tuple[Value, ...], ...], ...]
    used: pd.DataFrame
    left_out: int
    iterate: str


def fill(
    table: PaperTable,
    cells: pd.DataFrame,
    *,
    dataset: str | None = None,
    model: str | None = None,
    eps: str | None = None,
    iterate: str = "last",
) -> Filled:
    """Find the cells of a table.

    In each place stands, for each training seed, the cell measured as the paper measures: one restart, attack seed 0,
    without another surrogate; of those the one with most images, then the newest. All places show the same number of
    images where they can: that which most cells have.

    Args:
        table: from `paper_table`.
        cells: from `cells_frame`.
        dataset, model: what to show instead of the paper's.
        eps: as stored cells write it (`eps_text`); the paper's 8/255, or the only one there is.
        iterate: `last` or `any`.

    Raises:
        BenchError: nothing fits; says what is stored.
    """
    chosen = _of_dataset(table, cells, dataset, model)
    models = tuple(model or _model(block, chosen) for block in table.blocks)
    chosen = chosen[chosen["model"].isin(models)]
    chosen = _of_budget(chosen, eps)
    wanted = {row.defense for block in table.blocks for row in block.rows}
    fitting = chosen[chosen["defense"].isin(wanted - {None})]
    valid = fitting[fitting["verdict"] != "invalid"]
    if valid.empty:
        raise BenchError(_nothing(table, cells))
    n = int(valid["n"].mode().max())
    used: list[pd.DataFrame] = []
    blocks = []
    for block, name in zip(table.blocks, models, strict=True):
        of_model = valid[valid["model"] == name]
        lines = [
            tuple(_value(of_model, table, block, row, column, n, iterate, used) for column in table.columns)
            for row in block.rows
        ]
        blocks.append(_with_best(block.rows, lines))
    shown = pd.concat(used).drop_duplicates("key") if used else valid.iloc[:0]
    competing = rows_where(fitting, [_competes(line, table) for line in fitting.itertuples()])
    left_out = len(set(competing["key"]) - set(shown["key"]))
    return Filled(table, str(chosen["dataset"].iloc[0]), models, tuple(blocks), shown, left_out, iterate)


def _of_dataset(table: PaperTable, cells: pd.DataFrame, dataset: str | None, model: str | None) -> pd.DataFrame:
    name = dataset or table.dataset
    chosen = cells[cells["dataset"] == name]
    if chosen.empty and dataset is None and cells["dataset"].nunique() == 1:
        chosen = cells
    if model is not None:
        chosen = chosen[chosen["model"] == model]
    if chosen.empty:
        raise BenchError(_nothing(table, cells))
    return chosen


def _model(block: Block, chosen: pd.DataFrame) -> str:
    """The paper's model; where it was not run, the one that was."""
    names = list(chosen["model"].unique())
    return names[0] if block.model not in names and len(names) == 1 else block.model


def _of_budget(chosen: pd.DataFrame, eps: str | None) -> pd.DataFrame:
    chosen = chosen[chosen["norm"] == "linf"]
    budgets = list(chosen["eps_text"].unique())
    wanted = eps or ("8/255" if "8/255" in budgets or not budgets else str(chosen["eps_text"].mode().iloc[0]))
    return chosen[chosen["eps_text"] == wanted]


def _nothing(table: PaperTable, cells: pd.DataFrame) -> str:
    held = sorted({f"{line.dataset} / {line.model} at eps {line.eps_text}" for line in cells.itertuples()})
    stored = f"stored are {', '.join(held)}: choose with --dataset, --model, --eps" if held else "nothing is stored"
    return f"no finished cell belongs in {table.name}; {stored}, or run: bench run --preset {table.name}"


def _fits(line: object, column: Column) -> bool:
    attack, noisy = str(line.attack), line.neuron != "lif"  # type: ignore[attr-defined]
    if not column.attack:
        return True
    return attack == column.attack or (not noisy and attack == without_eot(column.attack))


def _competes(line: object, table: PaperTable) -> bool:
    return any(column.attack and _fits(line, column) for column in table.columns)


def _value(
    cells: pd.DataFrame,
    table: PaperTable,
    block: Block,
    row: Row,
    column: Column,
    n: int,
    iterate: str,
    used: list[pd.DataFrame],
) -> Value:
    printed = _printed(table, block, row, column)
    fitting = cells[cells["defense"] == row.defense]
    fitting = rows_where(fitting, [_fits(line, column) for line in fitting.itertuples()])
    if fitting.empty:
        return Value(None, published=printed)
    fitting = fitting.assign(
        strange=(fitting["restarts"] != 1).astype(int) + (fitting["attack_seed"] != 0) + (fitting["n"] != n)
    )
    # The newest cell of the best kind stands last for each seed.
    best = fitting.sort_values(["strange", "n", "updated"], ascending=[False, True, True], kind="stable")
    best = best.groupby("seed", sort=True).tail(1).sort_values("seed")
    if len(best) > 1:
        best = best[best["n"] == best["n"].mode().max()]
    rate = "clean" if not column.attack else {"last": "robust", "any": "robust_any"}[iterate]
    if column.attack or not _has_attacked(cells, row, table):
        used.append(best)
    measured = over_seeds([float(value) for value in best[rate]])
    if len(best) == 1:
        line = best.iloc[0]
        measured = measured._replace(low=float(line[f"{rate}_low"]), high=float(line[f"{rate}_high"]))
    suspect = bool((best["verdict"] == "suspect").any()) and bool(column.attack)
    return Value(
        measured, int(best["n"].iloc[0]), int(best["draws"].max()), tuple(best["key"]), tuple(map(int, best["seed"])),
        suspect, published=printed,
    )  # fmt: skip


def _has_attacked(cells: pd.DataFrame, row: Row, table: PaperTable) -> bool:
    mine = cells[cells["defense"] == row.defense]
    return any(_competes(line, table) for line in mine.itertuples())


def _printed(table: PaperTable, block: Block, row: Row, column: Column) -> float | None:
    frame = published()
    attack, steps = column.published
    found = frame[
        frame["source_paper"].str.startswith(TGO)
        & (frame["table"] == table.source)
        & (frame["architecture"] == block.architecture)
        & (frame["train_strategy"] == row.strategy)
        & (frame["method"] == row.published)
        & (frame["attack"] == attack)
        & (frame["steps"] == steps)
    ]["value"].dropna()
    return float(found.iloc[0]) if len(found) else None


def _with_best(rows: Sequence[Row], lines: Sequence[tuple[Value, ...]]) -> tuple[tuple[Value, ...], ...]:
    """Mark the best of each strategy, where there is more than one to choose from."""
    marked = [list(line) for line in lines]
    for column in range(len(lines[0])):
        for strategy in {row.strategy for row in rows}:
            group = [i for i, row in enumerate(rows) if row.strategy == strategy]
            values = {i: m.value for i in group if (m := lines[i][column].measured) is not None}
            for i, value in values.items():
                if len(values) > 1 and value == max(values.values()):
                    marked[i][column] = replace(marked[i][column], best=True)
    return tuple(tuple(line) for line in marked)
