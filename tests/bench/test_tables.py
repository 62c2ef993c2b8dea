"""The paper's tables from stored cells."""

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT, Run
from typer.main import get_command
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import BenchError
from bench.frames import cells_frame
from bench.presets import PRESETS
from bench.report.published import TGO, published
from bench.report.sheet import Piece
from bench.report.tables.caption import caption
from bench.report.tables.fill import Filled, fill
from bench.report.tables.layout import TABLES, paper_table
from bench.report.tables.write import table_frame, table_sheet, write_table


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
        "robust_any": robust / 2, "test_set": "t",
        "weights": f"{defense} {seed}", "updated": pd.Timestamp("2026-01-01"),
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
    ours = frame[(frame["source_paper"] == TGO) & (frame["table"] == table.source)]
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
        if column.attack
    }
    assert runs >= wanted
    # Beside what Table 5 prints: the same networks without adversarial training.
    assert {defense for _, defense, _ in runs - wanted} == ({"vanilla", "tgo"} if name == "table5" else set())
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
    other["lr"] = 0.01
    text = caption(filled(cell("at", "pgd40", 0.2, **other, train_size=96)))
    for part in (
        "dataset digits (paper: CIFAR-10)", "model cnn-small (paper: WRN-16)", "test images 500 (paper: 10,000)",
        "eps 0.1 (paper: 8/255)", "T 8 (paper: 4)", "decay 1.0 (paper: 0.5)", "epochs 15 (paper: 300)",
        "learning rate 0.01 (paper: 0.1)",
        "training images 96 (paper: all)", "training seeds for a value 1 (paper: 3)",
    ):  # fmt: skip
        assert part in text
    own = [cell(d, a, 0.2, seed) for d in ("at", "tgo") for a in ("fgsm", "pgd40") for seed in (0, 1, 2)]
    assert "NOT the paper's" not in caption(filled(*own))


def test_a_run_on_other_data_is_never_shown_unasked_where_there_is_a_choice() -> None:
    cells = [cell("at", "pgd40", 0.2, dataset=name) for name in ("digits", "mine")]
    with pytest.raises(BenchError, match="stored are digits / wrn16-4 at eps 8/255; mine / wrn16-4"):
        filled(*cells)
    assert filled(*cells, dataset="mine").dataset == "mine"


def test_a_few_cells_at_the_paper_s_budget_do_not_hide_a_table_on_other_data() -> None:
    of = {"dataset": "digits", "model": "cnn-small"}
    curve = [cell("at", "pgd10", 0.9, **of), cell("at", "squareK", 0.9, **of)]
    table = [cell("at", name, 0.5, eps=0.1, eps_text="0.1", **of) for name in ("fgsm", "pgd10", "pgd40")]
    found = filled(*curve, *table)
    assert place(found, "at", "pgd10")["measured"] == 0.5
    assert place(filled(*curve, *table, eps="8/255"), "at", "pgd10")["measured"] == 0.9
    # On the paper's data its budget is the one that is compared.
    own = [line | {"dataset": "cifar10"} for line in (*curve, *table)]
    assert place(filled(*own), "at", "pgd10")["measured"] == 0.9


def test_cells_that_have_a_row_but_no_column_are_no_table() -> None:
    with pytest.raises(BenchError, match="no finished cell belongs in table3"):
        filled(cell("at", "pgd10", 0.9, dataset="cifar100"), table="table3")


def test_a_title_never_names_data_that_was_not_measured() -> None:
    small = caption(filled(cell("at", "pgd40", 0.2, dataset="digits")))
    assert small.startswith("Robust accuracy on digits, arranged as the TGO paper's Table 1.")
    assert caption(filled(cell("at", "pgd40", 0.2))).startswith("Robust accuracy on CIFAR-10 (TGO, Table 1).")


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
    assert "20.0 [19.0, 21.0]†<br>paper 12.93, +7.1" in text
    assert "| - <br>" not in text
    assert "-<br>paper 20.11" in text
    assert "suspect" in text


def test_a_row_is_of_one_training_and_a_mean_of_seeds_that_were_trained_alike() -> None:
    later = pd.Timestamp("2027-01-01")
    short = {"epochs": 1, "weights": "short", "updated": later}
    found = filled(cell("at", "fgsm", 0.5), cell("at", "pgd40", 0.4), cell("at", "pgd40", 0.1, **short))
    assert place(found, "at", "pgd40")["measured"] == 0.4
    assert found.left_out == 1
    assert "epochs" not in caption(found)
    # What only the other training has been measured on stays empty rather than borrowed.
    found = filled(cell("at", "fgsm", 0.5), cell("at", "pgd40", 0.1, **short))
    assert pd.isna(place(found, "at", "pgd40")["measured"])
    found = filled(cell("at", "pgd40", 0.4), cell("at", "pgd40", 0.1, 1, **short))
    assert place(found, "at", "pgd40")["seeds"] == "0"


def test_a_mean_is_over_seeds_measured_alike() -> None:
    found = filled(
        cell("tgo", "pgd40", 0.2, 0),
        cell("tgo", "pgd40", 0.4, 1),
        cell("tgo", "pgd40", 0.9, 2, draws=1),
        cell("tgo", "pgd40", 0.9, 0, test_set="another", updated=pd.Timestamp("2027-01-01")),
    )
    line = place(found, "tgo", "pgd40")
    assert (line["seeds"], line["measured"], line["draws"]) == ("0 1", pytest.approx(0.3), 5)
    assert found.left_out == 2
    assert "over 5 scoring draws" in caption(found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((0, 1)), st.sampled_from((100, 10_000)), st.sampled_from((0, 3)), st.sampled_from((1, 300)),
            st.sampled_from((4, 8)), st.integers(0, 2), st.sampled_from(("a", "b")),
        ),
        min_size=1, max_size=8, unique=True,
    ),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_which_cell_is_shown_does_not_depend_on_the_order_of_the_store(
    drawn: list[tuple[Any, ...]], random: Any
) -> None:
    cells = [
        cell(
            "at", "pgd40", 0.1 + i / 20, seed, n=n, attack_seed=attack_seed, epochs=epochs, T=T,
            weights=f"{weights} {epochs} {T} {seed}", updated=pd.Timestamp("2026-01-01") + pd.Timedelta(days=age),
        )
        for i, (seed, n, attack_seed, epochs, T, age, weights) in enumerate(drawn)
    ]  # fmt: skip
    found = filled(*cells)
    line = place(found, "at", "pgd40")
    shown = [one for one in cells if str(one["key"]) in line["keys"]]
    assert len({(one["n"], one["attack_seed"], one["epochs"], one["T"]) for one in shown}) == 1
    assert sorted(str(one["seed"]) for one in shown) == line["seeds"].split()
    assert found.left_out == len(cells) - len(shown)
    # The paper's training is taken wherever there is one.
    assert (300, 4) in {(one["epochs"], one["T"]) for one in shown} or (300, 4) not in {
        (one["epochs"], one["T"]) for one in cells
    }
    random.shuffle(cells)
    assert place(filled(*cells), "at", "pgd40")["keys"] == line["keys"]


def test_a_block_is_never_filled_with_the_model_of_the_other() -> None:
    wide = cell("at", "fgsm", 0.5, dataset="cifar100")
    small = cell("at", "fgsm", 0.3, dataset="cifar100", model="vgg11")
    frame = table_frame(filled(wide, table="table2"))
    assert set(frame[frame["measured"].notna()]["model"]) == {"wrn16-4"}
    for name, value in (("vgg11", 0.3), ("wrn16-4", 0.5)):
        alone = filled(wide, small, table="table2", model=name)
        assert alone.models == (name,)
        assert place(alone, "at", "fgsm")["measured"] == value
    # A model that is not the paper's stands in for both, and is named.
    foreign = filled(cell("at", "fgsm", 0.5, dataset="cifar100", model="cnn-small"), table="table2")
    assert "cnn-small for VGG-11" in write_table(foreign, "md")


def test_images_stand_in_for_events_only_if_asked_to() -> None:
    images = cell("at", "pgd7", 0.4, dataset="digits")
    with pytest.raises(BenchError, match="no finished cell belongs in table5; stored are digits / wrn16-4 at eps"):
        filled(images, table="table5")
    assert place(filled(images, table="table5", dataset="digits"), "at", "pgd7")["measured"] == 0.4
    own = filled(cell("at", "pgd30", 0.4, dataset="cifar10-dvs", n=1000), table="table5")
    assert place(own, "at", "pgd30")["difference"] == pytest.approx(0.4 - 0.452)


def test_the_ablation_has_the_strategies_beside_each_other_as_printed() -> None:
    of = {"dataset": "cifar100", "model": "vgg11"}
    lines = [cell("mc", "pgd40", 0.2, **of), cell("mc+rat", "pgd40", 0.6, **of), cell("vanilla", "pgd40", 0.1, **of)]
    sheet = table_sheet(filled(*lines, table="table4"), with_published=True)
    assert sheet.columns[:2] == ("Method", "BPTT Clean")
    assert [row[0].text for row in sheet.rows] == ["neither", "MC", "NLIF", "MC+NLIF"]
    row = dict(zip(sheet.columns, sheet.rows[1], strict=True))
    assert row["BPTT PGD-40"] == Piece("20.0", "[19.0, 21.0]", "paper 0.5, +19.5", bold=True)
    assert row["RAT PGD-40"] == Piece("60.0", "[59.0, 61.0]", "paper 6.2, +53.8")


def test_values_over_more_seeds_than_others_are_marked() -> None:
    found = filled(cell("at", "fgsm", 0.4), *(cell("at", "pgd40", 0.2 + seed / 10, seed) for seed in (0, 1)))
    text = write_table(found, "md")
    assert "×k: mean over k training seeds" in text
    assert text.count("×2") == 2  # under PGD-40, and clean
    alike = filled(*(cell("at", "pgd40", 0.2 + seed / 10, seed) for seed in (0, 1)))
    assert "×" not in write_table(alike, "md")
    assert "mean over 2 training seeds" in caption(alike)


def test_where_printed_values_come_from_and_what_is_odd_about_them_stands_below() -> None:
    of = {"dataset": "cifar100", "model": "vgg11"}
    text = write_table(filled(cell("mc", "pgd40", 0.2, **of), table="table4"), "text", with_published=True)
    assert "printed in TGO (Wang et al., ICLR 2026, arXiv 2602.20548), Table 4" in text
    assert "row order none/MC/NLIF/both inferred" in text
    text = write_table(filled(cell("at", "pgd40", 0.2, **of), table="table2"), "text", with_published=True)
    assert "DLIF, StoG: competitor row" in text
    assert "PGD7 8.30 < PGD10 9.62" in text


def test_every_format_shows_every_rate() -> None:
    found = filled(cell("at", "pgd40", 0.2), cell("tgo", "fgsm", 0.31))
    assert {"20.0", "31.0"} <= {piece.text for row in table_sheet(found).rows for piece in row}
    for form in ("text", "md", "latex", "html"):
        text = write_table(found, form)
        assert "20.0" in text
        assert "31.0" in text
    lines = list(csv.DictReader(io.StringIO(write_table(found, "csv"))))
    assert {line["measured"] for line in lines} >= {"0.2", "0.31", ""}
    objects = json.loads(write_table(found, "json"))
    assert len(objects) == len(lines)
    shown = next(line for line in objects if (line["defense"], line["attack"]) == ("at", "pgd40"))
    assert (shown["seeds"], shown["per_seed"], shown["n"], shown["eps"]) == ([0], [0.2], 10_000, "8/255")
    assert shown["published"] == 0.1293
    assert next(line for line in lines if line["measured"] == "0.2")["n"] == "10000"
    with pytest.raises(BenchError, match="unknown format 'pdf'"):
        write_table(found, "pdf")


def test_from_the_command_line(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    assert bench(*tiny_run, "-d", "vanilla,at", "-a", "fgsm,pgd7").returncode == 0
    shown = bench("table", "table1", "--with-published", "--format", "html", "-o", "t.html")
    assert shown.returncode == 0, shown.stderr
    page = (tmp_path / "t.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "NOT the paper&#x27;s conditions: dataset tiny" in page
    assert "epochs 1 (paper: 300)" in page
    assert bench("table", "table1", "-o", "t.tex").returncode == 0
    assert "\\toprule" in (tmp_path / "t.tex").read_text()
    wrong = bench("table", "table1", "-o", "t.csv", "--format", "md")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "'t.csv' ends as csv, but --format says md" in wrong.stderr
    assert not (tmp_path / "t.csv").exists()
    wrong = bench("table", "table1", "--dataset", "cifar10")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no finished cell belongs in table1; stored are" in wrong.stderr


def in_one_line(*arguments: str) -> str:
    """The complaint of a command that must fail as a mistake of its user."""
    done = CliRunner().invoke(app, [*arguments, "--results", "nowhere"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    return done.stderr


def test_mistakes_are_answered_in_one_line() -> None:
    assert "unknown table 'table9'; choose from table1" in in_one_line("table", "table9")
    assert "needs a table of the paper" in in_one_line("table", "--with-published")
    assert "there is no store in 'nowhere' yet" in in_one_line("table", "table1", "--with-published")
    absent = in_one_line("run", "--preset", "table5", "--data-dir", "nowhere")
    assert "cifar10-dvs is not in 'nowhere/CIFAR10DVS': download airplane.zip to truck.zip from https://" in absent


def test_the_commands_of_the_guide_are_understood() -> None:
    guide = (ROOT / "docs" / "tables.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", guide, re.S) for line in block.splitlines()]
    assert len(lines) == 4
    group = get_command(app)
    for line in lines:
        name, command, *arguments = shlex.split(line, comments=True)
        assert name == "bench"
        group.commands[command].make_context(command, arguments)  # type: ignore[attr-defined]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("name", TABLES)
def test_latex_compiles_every_table_in_letters_that_can_be_read(name: str, tmp_path: Path) -> None:
    table = TABLES[name]
    lines = [
        cell(row.defense, column.attack, 0.5, dataset=table.dataset, model=block.model)
        for block in table.blocks
        for row in block.rows
        for column in table.columns
        if column.attack
    ]
    text = write_table(filled(*lines, table=name), "latex", with_published=True)
    head = r"\documentclass{article}\usepackage{cmap,booktabs,graphicx}\begin{document}"
    (tmp_path / "t.tex").write_text("\n".join([head, text, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "Float too large" not in done.stdout
    if shutil.which("pdftotext") is None:
        return
    layout = ["pdftotext", "-bbox", "t.pdf", "-"]
    found = subprocess.run(layout, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout
    heights = [float(bottom) - float(top) for top, bottom in re.findall(r'yMin="([\d.]+)".*?yMax="([\d.]+)"', found)]
    assert min(heights) > 4.2
