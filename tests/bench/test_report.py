"""Tables arrange what is stored, and lose nothing in a narrow window."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
import pytest

from bench.audit.finding import Finding
from bench.audit.join import AuditRow
from bench.report.cells import cell_json, print_cell, print_cells
from bench.report.doubt import MARK
from bench.report.matrix import matrix, render
from bench.statistics import Rate, wilson
from bench.store import CellRow
from bench.store.rows import Summary


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
        "spec": {
            "attack": {"family": family, "steps": steps, "restarts": 1, "surrogate": None},
            "model": {"T": 4, "neuron": {"kind": "lif", "decay": 0.5, "surrogate": "triangular"}},
            "attack_seed": 0, "test_hash": "abc",
        },
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
    assert "2 cells are left out: invalid, superseded or without a last iterate" in render(table, "text")


def test_the_any_iterate_reading_is_another_column() -> None:
    rows = [row("at", "fgsm", robust=0.4)]
    assert matrix(rows, "any").rates.iloc[0]["fgsm"].value == 0.2
    assert "any iterate" in render(matrix(rows, "any"), "text")


DOUBT = Finding("black box", "suspect", 0.2, 0.03, "random search breaks more images")
TIES = Finding("ties", "suspect", 0.1, 0.05, "13 of 100 images tie")
CALM = Finding("chance", "ok", 0.1, 0.9, "above chance")


def doubted(defense: str, attack: str, *findings: Finding, verdict: str = "suspect") -> CellRow:
    """A cell that its network's audit doubts."""
    audit = AuditRow("a" * 64, "1/10", 128, 1, verdict, (CALM, *findings), 1.0, datetime.now(UTC))
    return row(defense, attack, verdict=verdict, findings=(CALM, *findings), audit=audit)


@pytest.mark.parametrize("form", ["text", "md"])
def test_a_suspect_rate_is_marked_and_the_reasons_are_counted_below(form: str) -> None:
    rows = [row("at", "fgsm", robust=0.2), doubted("at", "pgd7", DOUBT), doubted("tgo", "fgsm", DOUBT)]
    rows.append(row("tgo", "pgd7", verdict="suspect", findings=(TIES, CALM)))
    text = render(matrix(rows), form)
    marked = [line.count("]†") for line in text.splitlines() if re.search(r"\b(at|tgo)\b.*\]", line)]
    assert marked == [1, 2]
    assert "20.0 [13.3, 28.9]†" not in text
    assert "suspect, perhaps too high: 3 of 4 cells (audit: black box 2, ties 1)" in text
    assert MARK not in render(matrix(rows[:1]), form)


def test_what_a_cell_and_its_audit_both_found_counts_once() -> None:
    same = replace(doubted("at", "pgd7", TIES), findings=(TIES, CALM, TIES))
    assert "1 of 1 cells (audit: ties 1)" in render(matrix([same]), "text")


def test_an_invalid_audit_takes_a_network_s_cells_out_of_the_table() -> None:
    broken = Finding("nan", "invalid", 0.1, 0.0, "NaN logits")
    rows = [row("at", "fgsm"), doubted("tgo", "fgsm", broken, verdict="invalid")]
    table = matrix(rows)
    assert table.hidden == 1
    assert list(table.rates.index.get_level_values("defense")) == ["at"]


def test_data_formats_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    lines = json.loads(render(matrix([row("at", "fgsm"), doubted("tgo", "fgsm", DOUBT)]), "json"))
    assert [(line["verdict"], line["findings"], line["audit"]) for line in lines] == [
        ("ok", "", "none"),
        ("suspect", "black box: random search breaks more images", "suspect"),
    ]
    assert cell_json(doubted("tgo", "fgsm", DOUBT))["findings"][1] == DOUBT.as_json()
    print_cells([row("at", "fgsm"), doubted("tgo", "fgsm", DOUBT)], "x.sqlite")
    listed = capsys.readouterr().out
    assert "suspect: audit: black box" in listed
    assert listed.count("]†") == 1


def shown_cell(cell: CellRow, capsys: pytest.CaptureFixture[str], **spec: object) -> str:
    attack = {"family": "pgd", "steps": 7, "params": [], "low": 0.0, "high": 1.0, "surrogate": None, "restarts": 1}
    model = {"name": "cnn-small", "T": 4, "neuron": {"kind": "lif", "decay": 0.5, "surrogate": "triangular"}}
    whole = {"attack": attack | spec, "model": model, "attack_seed": 0, "test_hash": "abc"}
    print_cell(replace(cell, spec=whole), {"sha256": "0" * 64, "spec": {}}, {}, None)
    return " ".join(capsys.readouterr().out.split())


def test_one_cell_is_shown_with_its_placebo_its_audit_and_every_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown_cell(row("at", "pgd7", findings=(CALM,)), capsys)
    assert "placebo (eps = 0) equals clean accuracy on all 100 images" in text
    assert "audit unaudited" in text
    assert "majority" not in text and "eot" not in text
    noisy = row("at", "pgd7", findings=(CALM, TIES), verdict="invalid", flags={"PLACEBO": 3}, draws=5)
    assert noisy.summary is not None
    noisy = replace(noisy, summary=replace(noisy.summary, majority=rate(0.42)))
    text = shown_cell(noisy, capsys, eot=8)
    assert "placebo (eps = 0) differs from clean accuracy on 3 of 100 images" in text
    assert "majority 42.0" in text
    assert "eot 8" in text
    assert "13 of 100 images tie" in text
    assert "not measured (stored by an earlier release)" in shown_cell(row("at", "pgd7"), capsys)
    audited = shown_cell(doubted("at", "pgd7", DOUBT), capsys)
    assert "audit suspect, 2 checks on 128 images" in audited
    assert "random search breaks more images" in audited


@pytest.mark.parametrize("form", ["csv", "json"])
def test_data_formats_hold_every_rate_with_its_interval(form: str) -> None:
    import io

    def columns(*rows: CellRow) -> pd.DataFrame:
        text = render(matrix(rows), form)
        return pd.read_csv(io.StringIO(text)) if form == "csv" else pd.read_json(io.StringIO(text))

    frame = columns(row("at", "pgd7", 7), row("vanilla", "fgsm", eps="8/255"))
    assert list(frame["defense"]) == ["vanilla", "at"]
    assert list(frame["eps_text"].astype(str)) == ["8/255", "0.1"]
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


def test_a_deterministic_network_stands_in_the_column_of_the_mean_over_draws() -> None:
    def of(kind: str, defense: str, attack: str) -> CellRow:
        model = {"T": 4, "neuron": {"kind": kind}}
        spec = {"attack": {"family": "pgd", "steps": 7}, "model": model, "attack_seed": 0, "test_hash": "abc"}
        return row(defense, attack, 7, spec=spec | ({"noise_version": 2} if kind == "nlif" else {}))

    both = [of("lif", "at", "pgd7"), of("nlif", "tgo", "pgd7:eot=3")]
    assert list(matrix(both).rates.columns) == ["clean", "pgd7:eot=3"]
    assert matrix(both).rates.notna().all().all()
    assert list(matrix([*both, of("nlif", "tgo", "pgd7")]).rates.columns) == ["clean", "pgd7", "pgd7:eot=3"]
