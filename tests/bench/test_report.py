"""Tables arrange what is stored, and lose nothing in a narrow window."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
import pytest

from bench.report.matrix import matrix, render
from bench.statistics import Rate, wilson
from bench.store import CellRow
from bench.store.store import Summary


def rate(value: float) -> Rate:
    return wilson(100 * value, 100)


def row(defense: str, attack: str, steps: int = 0, robust: float = 0.5, **changes: object) -> CellRow:
    family = attack.rstrip("0123456789")
    summary = Summary(*(rate(value) for value in (0.9, robust, robust / 2, 0.4, 0.1)))
    values: dict[str, object] = {
        "key": f"{defense}{attack}{changes}", "status": "done", "verdict": "ok", "dataset": "digits",
        "model": "cnn-small", "defense": defense, "seed": 0, "attack": attack, "norm": "linf", "eps": "1/10",
        "n": 100, "draws": 1, "flags": {}, "forwards": 1, "backwards": 1, "seconds": 1.0, "error": None,
        "weights_key": f"train:{defense}",
        "spec": {"attack": {"family": family, "steps": steps}, "model": {"T": 4}, "attack_seed": 0, "test_hash": "abc"},
        "updated": datetime.now(UTC), "summary": summary,
    }  # fmt: skip
    return CellRow(**(values | changes))  # type: ignore[arg-type]


def test_rows_and_columns_stand_in_a_reader_s_order_whatever_ran_first() -> None:
    rows = [
        row("tgo+at", "pgd40", 40),
        row("tgo", "pgd7", 7),
        row("mine", "fgsm"),
        row("vanilla", "rfgsm"),
        row("mc:lam_max=0.6", "theirs"),
        row("at", "pgd10", 10),
    ]
    rates = matrix(rows).rates
    assert list(rates.columns) == ["clean", "fgsm", "rfgsm", "pgd7", "pgd10", "pgd40", "theirs"]
    assert list(rates.index.get_level_values("defense")) == ["vanilla", "at", "mc:lam_max=0.6", "tgo", "mine", "tgo+at"]
    assert rates.notna().sum().sum() == 12


def test_what_is_the_same_everywhere_stands_in_the_caption() -> None:
    rows = [row("vanilla", "fgsm"), row("at", "fgsm")]
    text = render(matrix(rows), "md")
    assert "dataset digits, model cnn-small, seed 0, n 100" in text
    assert "| defense | clean | fgsm |" in text
    two_seeds = render(matrix([*rows, row("at", "fgsm", seed=1)]), "md")
    assert "| defense | seed | clean | fgsm |" in two_seeds


def test_networks_alike_in_all_but_their_weights_are_told_apart() -> None:
    rows = [row("tgo", "fgsm"), row("tgo", "fgsm", weights_key="train:other")]
    assert "| defense | weights | clean | fgsm |" in render(matrix(rows), "md")


def test_cells_measured_in_another_way_are_another_row_not_superseded() -> None:
    first = row("tgo", "fgsm", draws=5)
    for changes in (
        {"draws": 1},
        {"spec": {**first.spec, "test_hash": "def"}},
        {"spec": {**first.spec, "attack_seed": 1}},
        {"spec": {**first.spec, "model": {"T": 8}}},
    ):
        table = matrix([first, replace(first, key="other", **changes)])
        assert table.hidden == 0
        assert len(table.rates) == 2
        head = render(table, "md").splitlines()[2]
        extra = {"draws", "test set", "attack seed", "weights"} & {cell.strip() for cell in head.split("|")}
        assert len(extra) == 1, head


def test_rows_that_differ_anyway_need_no_more_columns() -> None:
    text = render(matrix([row("vanilla", "fgsm", draws=1), row("tgo", "fgsm", draws=5)]), "md")
    assert "| defense | clean | fgsm |" in text


def test_the_clean_attack_is_the_clean_column_whatever_its_name() -> None:
    plain, swept = row("at", "clean"), row("at", "clean@arctan:alpha=2")
    swept = replace(swept, spec=plain.spec)
    assert list(matrix([row("at", "fgsm"), plain, swept]).rates.columns) == ["clean", "fgsm"]


def test_several_budgets_make_columns_of_their_own() -> None:
    rows = [row("at", "fgsm", eps=eps) for eps in ("1/5", "1/10", "8/255")]
    assert list(matrix(rows).rates.columns) == ["clean", "fgsm linf 8/255", "fgsm linf 0.1", "fgsm linf 0.2"]


def test_invalid_and_superseded_cells_are_counted_not_shown() -> None:
    rows = [row("at", "fgsm", robust=0.2), row("at", "fgsm", robust=0.3), row("at", "pgd7", 7, verdict="invalid")]
    table = matrix(rows)
    assert table.hidden == 2
    assert list(table.rates.columns) == ["clean", "fgsm"]
    assert table.rates.iloc[0]["fgsm"].value == 0.3
    assert "2 invalid or superseded cells are left out" in render(table, "text")


def test_the_any_iterate_reading_is_another_column() -> None:
    rows = [row("at", "fgsm", robust=0.4)]
    assert matrix(rows, "any").rates.iloc[0]["fgsm"].value == 0.2
    assert "any iterate" in render(matrix(rows, "any"), "text")


@pytest.mark.parametrize("form", ["csv", "json"])
def test_data_formats_hold_every_rate_with_its_interval(form: str) -> None:
    import io

    def columns(*rows: CellRow) -> pd.DataFrame:
        text = render(matrix(rows), form)
        return pd.read_csv(io.StringIO(text)) if form == "csv" else pd.read_json(io.StringIO(text))

    frame = columns(row("at", "pgd7", 7), row("vanilla", "fgsm", eps="8/255"))
    assert list(frame["defense"]) == ["vanilla", "at"]
    assert list(frame["eps"].astype(str)) == ["8/255", "0.1"]
    for rate in ("clean", "robust", "robust_any", "attack_success"):
        assert {rate, f"{rate}_low", f"{rate}_high"} <= {*frame}
    assert list(columns(row("at", "fgsm"))) == list(frame)


def test_a_narrow_window_loses_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    rows = [row("tgo+at", f"pgd{steps}", steps) for steps in (7, 10, 20, 40)]
    text = re.sub(r"\x1b\[[0-9;]*m", "", render(matrix(rows), "text"))
    assert max(map(len, text.splitlines()[2:])) <= 80
    assert text.count("59.6]") == 4
    assert "…" not in text
