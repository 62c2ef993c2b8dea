"""The paper's tables from stored cells, and what formats make of any text."""

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from support import Run

from bench.errors import BenchError
from bench.frames import cells_frame
from bench.presets import PRESETS
from bench.report.formats.html import page
from bench.report.published import TGO, published
from bench.report.sheet import Piece, Sheet, write_sheet
from bench.report.tables.fill import Filled, fill
from bench.report.tables.layout import TABLES, paper_table
from bench.report.tables.write import caption, table_frame, table_sheet, write_table

HOSTILE = ["a_b%c&d#e$f~g^h\\i{j}k", "<script>alert(1)</script>", "x|y*z`w", "ελ±†≤ 漢字", '"quoted" & more']


def cell(defense: str, attack: str, robust: float, seed: int = 0, **changes: object) -> dict[str, object]:
    """A row of `cells_frame` measured in the paper's way."""
    line: dict[str, object] = dict.fromkeys(cells_frame(None).columns)
    noisy = "tgo" in defense or "nlif" in defense
    line |= {
        "key": f"{defense} {attack} {seed} {changes}", "dataset": "cifar10", "model": "wrn16-4", "T": 4, "decay": 0.5,
        "neuron": "nlif" if noisy else "lif", "defense": defense, "seed": seed, "epochs": 300, "train_size": 0,
        "attack": attack, "restarts": 1, "norm": "linf", "eps": 8 / 255, "eps_text": "8/255", "n": 10_000,
        "draws": 5 if noisy else 1, "attack_seed": 0, "verdict": "ok", "clean": 0.9, "clean_low": 0.89,
        "clean_high": 0.91, "robust": robust, "robust_low": robust - 0.01, "robust_high": robust + 0.01,
        "robust_any": robust / 2, "updated": pd.Timestamp("2026-01-01"),
    }  # fmt: skip
    return line | changes


def filled(*lines: dict[str, object], table: str = "table1", **options: str) -> Filled:
    return fill(paper_table(table), pd.DataFrame(lines), **options)  # type: ignore[arg-type]


def place(found: Filled, defense: str, attack: str) -> pd.Series:
    frame = table_frame(found)
    chosen = frame[(frame["defense"] == defense) & (frame["attack"] == attack)]
    assert len(chosen) >= 1
    return chosen.iloc[0]


@pytest.mark.parametrize("name", TABLES)
def test_every_printed_number_has_its_place(name: str) -> None:
    """Each published number of a table appears in the layout, and the layout asks for no other."""
    table = TABLES[name]
    frame = published()
    ours = frame[frame["source_paper"].str.startswith(TGO) & (frame["table"] == table.source)]
    last = table.blocks[0].rows[0].defense or ""
    cells = cell(last, table.columns[-1].attack, 0.5, dataset=table.dataset, model=table.blocks[0].model)
    shown = table_frame(filled(cells, table=name))
    assert len(shown) == len(ours)
    assert sorted(shown["published"].dropna()) == sorted(ours["value"].dropna())
    assert len(ours) > 10


def test_a_few_published_numbers_as_printed() -> None:
    found = filled(cell("at", "pgd40", 0.2))
    assert place(found, "tgo+at", "pgd40")["published"] == pytest.approx(0.2011)
    assert place(found, "vanilla", "fgsm")["published"] == pytest.approx(0.1405)
    assert place(found, "at", "pgd40")["difference"] == pytest.approx(0.2 - 0.1293)
    assert pd.isna(place(found, "tgo", "pgd40")["difference"])


@pytest.mark.parametrize("name", TABLES)
def test_the_preset_runs_every_row_and_column_that_there_is(name: str) -> None:
    runs = {
        (chosen["model"], defense, attack)
        for chosen in PRESETS[name]
        for defense in chosen["defenses"]
        for attack in chosen["attacks"]
    }
    table = TABLES[name]
    wanted = {
        (block.model, row.defense, column.attack)
        for block in table.blocks
        for row in block.rows
        for column in table.columns
        if row.defense and column.attack
    }
    assert runs == wanted
    assert all(chosen["dataset"] == table.dataset for chosen in PRESETS[name])


def test_seeds_become_a_mean_with_its_interval_and_stay_to_be_seen() -> None:
    found = filled(*(cell("at", "pgd40", value, seed) for seed, value in enumerate((0.1, 0.2, 0.3))))
    line = place(found, "at", "pgd40")
    assert line["measured"] == pytest.approx(0.2)
    # t(0.975, 2) = 4.302653, s = 0.1.
    assert line["high"] - line["measured"] == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert line["per_seed"] == "0.100000 0.200000 0.300000"
    assert line["seeds"] == "0 1 2"
    assert "t-interval" in caption(found)
    assert "training seeds" not in caption(found).partition("NOT")[2]


def test_of_several_cells_the_one_measured_as_in_the_paper_is_shown_and_the_rest_counted() -> None:
    found = filled(
        cell("at", "pgd40", 0.2),
        cell("at", "pgd40", 0.3, attack_seed=7, updated=pd.Timestamp("2027-01-01")),
        cell("at", "pgd40", 0.4, restarts=5),
        cell("at", "pgd40", 0.5, n=100),
        cell("at", "pgd40", 0.6, verdict="invalid"),
        cell("at", "fgsm", 0.7),
    )
    assert place(found, "at", "pgd40")["measured"] == 0.2
    assert found.left_out == 4
    assert "4 invalid or otherwise measured cells are left out" in caption(found)


def test_every_condition_that_is_not_the_paper_s_is_said() -> None:
    other = {"dataset": "digits", "model": "cnn-small", "n": 500, "eps_text": "0.1", "T": 8, "decay": 1.0, "epochs": 15}
    text = caption(filled(cell("at", "pgd40", 0.2, **other, train_size=96)))
    for part in (
        "dataset digits (paper: CIFAR-10)", "model cnn-small (paper: WRN-16)", "test images 500 (paper: 10,000)",
        "eps 0.1 (paper: 8/255)", "T 8 (paper: 4)", "decay 1.0 (paper: 0.5)", "epochs 15 (paper: 300)",
        "training images 96 (paper: all)", "training seeds for a value 1 (paper: 3)",
    ):  # fmt: skip
        assert part in text
    own = [cell(d, a, 0.2, seed) for d in ("at", "tgo") for a in ("fgsm", "pgd40") for seed in (0, 1, 2)]
    assert "NOT the paper's" not in caption(filled(*own))


def test_a_run_on_other_data_is_never_shown_unasked_where_there_is_a_choice() -> None:
    cells = [cell("at", "pgd40", 0.2, dataset=name) for name in ("digits", "mine")]
    with pytest.raises(BenchError, match="stored are digits / wrn16-4 at eps 8/255, mine / wrn16-4"):
        filled(*cells)
    assert filled(*cells, dataset="mine").dataset == "mine"


def test_the_best_of_each_training_is_bold_ties_too_and_a_single_one_is_not() -> None:
    found = filled(
        cell("at", "fgsm", 0.5), cell("tgo+at", "fgsm", 0.5), cell("rat", "fgsm", 0.9), cell("at", "pgd7", 0.1)
    )
    assert place(found, "at", "fgsm")["best"]
    assert place(found, "tgo+at", "fgsm")["best"]
    assert not place(found, "rat", "fgsm")["best"]
    assert "\\textbf{50.0}" in write_table(found, "latex")
    assert "**50.0**" in write_table(found, "md")


def test_a_deterministic_network_belongs_in_the_column_of_a_mean_over_draws() -> None:
    def of(defense: str, attack: str) -> dict[str, object]:
        return cell(defense, attack, 0.3, dataset="cifar100")

    found = filled(of("at", "apgd20"), of("tgo+at", "apgd20:eot=3"), of("tgo+at", "apgd40"), table="table3")
    assert place(found, "at", "apgd20:eot=3")["measured"] == 0.3
    assert place(found, "tgo+at", "apgd20:eot=3")["measured"] == 0.3
    # One draw of a noisy network's noise is not what the paper's table shows.
    assert pd.isna(place(found, "tgo+at", "apgd40:eot=3")["measured"])


def test_published_values_stand_below_only_on_demand() -> None:
    found = filled(cell("at", "pgd40", 0.2, verdict="suspect"))
    assert "paper" not in write_table(found, "md").replace("paper:", "").replace("paper's", "")
    text = write_table(found, "md", with_published=True)
    assert "20.0 [19.0, 21.0]†<br>paper 12.9, +7.1" in text
    assert "| - <br>" not in text
    assert "-<br>paper 20.1" in text
    assert "suspect" in text


def sheet_of_hostile_words() -> Sheet:
    rows = tuple((Piece(word), Piece("1.0", f"[{word}]", word, True, "†")) for word in HOSTILE)
    return Sheet(("defense", "rate"), rows, 1, frozenset({2}), " and ".join(HOSTILE), (HOSTILE[0],))


def test_hostile_names_stay_text_in_html() -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()
            self.text = ""

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.add(tag)

        def handle_data(self, data: str) -> None:
            self.text += data

    reader = Reader()
    reader.feed(page(write_sheet(sheet_of_hostile_words(), "html"), HOSTILE[1]))
    assert "script" not in reader.tags
    assert all(word in reader.text for word in HOSTILE)


def test_hostile_names_do_not_break_a_markdown_table() -> None:
    lines = write_sheet(sheet_of_hostile_words(), "md").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {3}
    assert "<script>" not in "\n".join(lines)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_whatever_the_names(tmp_path: Path) -> None:
    found = filled(cell("at", "pgd40", 0.2), cell("tgo+at", "pgd40", 0.3, verdict="suspect"))
    tables = [write_table(found, "latex", with_published=True), write_sheet(sheet_of_hostile_words(), "latex")]
    source = "\n".join(
        [r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}", *tables, r"\end{document}"]
    )
    (tmp_path / "t.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").exists()
    assert "Overfull \\hbox" not in done.stdout


def test_every_format_shows_every_rate() -> None:
    found = filled(cell("at", "pgd40", 0.2), cell("tgo", "fgsm", 0.31))
    assert {"20.0", "31.0"} <= {piece.text for row in table_sheet(found).rows for piece in row}
    for form in ("text", "md", "latex", "html"):
        text = write_table(found, form)
        assert "20.0" in text
        assert "31.0" in text
    lines = list(csv.DictReader(io.StringIO(write_table(found, "csv"))))
    assert {line["measured"] for line in lines} >= {"0.2", "0.31", ""}
    assert len(json.loads(write_table(found, "json"))) == len(lines)
    with pytest.raises(BenchError, match="unknown format 'pdf'"):
        write_table(found, "pdf")


def test_from_the_command_line(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    assert bench(*tiny_run, "-d", "vanilla,at", "-a", "fgsm,pgd7").returncode == 0
    shown = bench("table", "table1", "--with-published", "--format", "md")
    assert shown.returncode == 0, shown.stderr
    assert "NOT the paper's conditions: dataset tiny" in shown.stdout.replace("\\", "")
    assert "epochs 1 (paper: 300)" in shown.stdout
    assert bench("table", "table1", "--format", "html", "-o", tmp_path / "t.html").returncode == 0
    assert (tmp_path / "t.html").read_text().startswith("<!doctype html>")
    for arguments, complaint in (
        (["table9"], "unknown table 'table9'; choose from table1"),
        (["table1", "--dataset", "cifar10"], "no finished cell belongs in table1; stored are"),
        (["--with-published"], "needs a table of the paper"),
    ):
        wrong = bench("table", *arguments)
        assert wrong.returncode == 2
        assert complaint in wrong.stderr
        assert wrong.stderr.count("\n") == 1
    absent = bench("run", "--preset", "table5")
    assert absent.returncode == 2
    assert "unknown dataset 'cifar10-dvs'" in absent.stderr
