"""Stored cells into the places of a paper's table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench.errors import BenchError
from bench.frames import rows_where
from bench.names import without_eot
from bench.report.published import Printed, printed
from bench.report.tables.choose import Cell, measurements, networks, trainings
from bench.report.tables.layout import EPS, Block, Column, PaperTable, Row
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
        published: the paper's value, a share, with what is odd about it; None where it prints none.
    """

    measured: SeedMean | None
    n: int = 0
    draws: int = 0
    keys: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    suspect: bool = False
    best: bool = False
    published: Printed | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published, a share."""
        if self.measured is None or self.published is None:
            return None
        return self.measured.value - self.published.value


@dataclass(frozen=True)
class Filled:
    """A table with its values.

    Attributes:
        table: its layout.
        dataset, models: what was measured instead of, or as, the paper's: our names; a model for each block.
        values: block -> row -> column.
        used: the cells that are shown, as rows of `cells_frame`; none where nothing is measured.
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

    @property
    def places(self) -> list[Value]:
        return [value for block in self.values for line in block for value in line]


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

    A row shows networks trained in one way, a place cells measured in one way, one for each training seed; of several
    ways the paper's comes first (`choose`).

    Args:
        table: from `paper_table`.
        cells: from `cells_frame`.
        dataset, model: what to show instead of the paper's. Where the paper's dataset was not measured and only one
            other was, that one is shown, and likewise for models. A model of the table's own shows its block alone.
        eps: as stored cells write it (`eps_text`). If not given, the paper's 8/255 on the paper's dataset if it is
            there, otherwise the budget that fills most places.
        iterate: `last` or `any`.

    Raises:
        BenchError: nothing fits; says what is stored. Not for a table whose dataset `bench` does not have yet: that
            one comes out without measured values.
    """
    chosen = _of_dataset(cells, table, dataset)
    table, models = _models(table, chosen, model)
    chosen = _of_budget(_fitting(chosen[chosen["model"].isin(models)], table), eps, table)
    fitting = list(chosen.itertuples())
    valid = [cell for cell in fitting if cell.verdict != "invalid"]
    if not valid:
        raise BenchError(_nothing(table, cells))
    values = tuple(
        _block(block, [cell for cell in valid if cell.model == name], table, iterate)
        for block, name in zip(table.blocks, models, strict=True)
    )
    keys = {key for block in values for line in block for value in line for key in value.keys}
    competing = {cell.key for cell in fitting if any(column.attack and _fits(cell, column) for column in table.columns)}
    used = rows_where(cells, [key in keys for key in cells["key"]])
    return Filled(table, dataset or str(used["dataset"].iloc[0]), models, values, used, len(competing - keys), iterate)


def _of_dataset(cells: pd.DataFrame, table: PaperTable, dataset: str | None) -> pd.DataFrame:
    chosen = cells[cells["dataset"] == (dataset or table.dataset)]
    if chosen.empty and dataset is None and not table.alone and cells["dataset"].nunique() == 1:
        return cells
    return chosen


def _models(table: PaperTable, chosen: pd.DataFrame, model: str | None) -> tuple[PaperTable, tuple[str, ...]]:
    """The table's blocks that are shown, and the model shown in each."""
    own, stored = [block.model for block in table.blocks], set(chosen["model"])
    if model in own:
        blocks = tuple(block for block in table.blocks if block.model == model)
        return replace(table, blocks=blocks), tuple(block.model for block in blocks)
    stand_in = model or (next(iter(stored)) if len(stored) == 1 and not stored & {*own} else None)
    return table, tuple(stand_in or name for name in own)


def _fitting(chosen: pd.DataFrame, table: PaperTable) -> pd.DataFrame:
    """The cells that have a row and a column of the table."""
    wanted = {row.defense for block in table.blocks for row in block.rows}
    chosen = chosen[(chosen["norm"] == "linf") & chosen["defense"].isin(wanted)]
    return rows_where(chosen, [any(_fits(cell, column) for column in table.columns) for cell in chosen.itertuples()])


def _of_budget(fitting: pd.DataFrame, eps: str | None, table: PaperTable) -> pd.DataFrame:
    if eps or fitting.empty:
        return fitting[fitting["eps_text"] == eps]
    # On other data the paper's budget is as good as any other: a few cells of a curve must not hide a whole table.
    own = set(fitting["dataset"]) == {table.dataset}
    places: dict[str, set[tuple[str, str, str]]] = {}
    for cell in fitting[fitting["verdict"] != "invalid"].itertuples():
        found = places.setdefault(str(cell.eps_text), set())
        found.update(
            (str(cell.model), str(cell.defense), column.head) for column in table.columns if _fits(cell, column)
        )
    usual = max(places, key=lambda text: (own and text == EPS, len(places[text]), text == EPS, text), default=EPS)
    return fitting[fitting["eps_text"] == usual]


def _nothing(table: PaperTable, cells: pd.DataFrame) -> str:
    held = [
        f"{dataset} / {model} at eps {', '.join(group.sort_values('eps')['eps_text'].unique())}"
        for (dataset, model), group in cells.groupby(["dataset", "model"])
    ]
    stored = f"stored are {'; '.join(held)}: choose with --dataset, --model, --eps" if held else "nothing is stored"
    return f"no finished cell belongs in {table.name}; {stored}, or run: bench run --preset {table.name}"


def _fits(cell: Cell, column: Column) -> bool:
    """Whether a cell's attack is a column's; a mean over draws of no noise is the plain gradient."""
    plain = cell.neuron == "lif" and cell.attack == without_eot(column.attack)
    return not column.attack or cell.attack == column.attack or plain


def _block(block: Block, cells: Sequence[Cell], table: PaperTable, iterate: str) -> tuple[tuple[Value, ...], ...]:
    ranks = trainings(cells)
    common = int(pd.Series([cell.n for cell in cells], dtype=int).mode().max()) if cells else 0
    lines = []
    for row in block.rows:
        mine = networks([cell for cell in cells if cell.defense == row.defense], ranks)
        line = []
        for column in table.columns:
            shown = measurements([cell for cell in mine if _fits(cell, column)], table.images, common)
            line.append(replace(_value(shown, column, iterate), published=_printed(table, block, row, column)))
        lines.append(tuple(line))
    return _with_best(block.rows, lines)


def _value(shown: Sequence[Cell], column: Column, iterate: str) -> Value:
    if not shown:
        return Value(None)
    rate = "clean" if not column.attack else {"last": "robust", "any": "robust_any"}[iterate]
    measured = over_seeds([float(getattr(cell, rate)) for cell in shown])
    if len(shown) == 1:
        low, high = (float(getattr(shown[0], f"{rate}_{end}")) for end in ("low", "high"))
        measured = measured._replace(low=low, high=high)
    return Value(
        measured,
        int(shown[0].n),
        int(shown[0].draws),
        tuple(cell.key for cell in shown),
        tuple(int(cell.seed) for cell in shown),
        bool(column.attack) and any(cell.verdict == "suspect" for cell in shown),
    )


def _printed(table: PaperTable, block: Block, row: Row, column: Column) -> Printed | None:
    return printed(table.source, block.architecture, row.strategy, row.published, *column.published)


def _with_best(rows: Sequence[Row], lines: Sequence[tuple[Value, ...]]) -> tuple[tuple[Value, ...], ...]:
    """Mark the best of each strategy, ties too, where there is more than one to choose from."""
    marked = [list(line) for line in lines]
    for column in range(len(lines[0])):
        for strategy in dict.fromkeys(row.strategy for row in rows):
            group = _measured((i, lines[i][column]) for i, row in enumerate(rows) if row.strategy == strategy)
            for i, value in group.items():
                if len(group) > 1 and value == max(group.values()):
                    marked[i][column] = replace(marked[i][column], best=True)
    return tuple(tuple(line) for line in marked)


def _measured(values: Iterable[tuple[int, Value]]) -> dict[int, float]:
    return {i: value.measured.value for i, value in values if value.measured is not None}
