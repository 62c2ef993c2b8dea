"""Rows whose values a search found: shown by names one can read, found by names one can type."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measuring import measure, tiny_request

from bench.comparison import compare
from bench.errors import BenchError
from bench.figures.curves import draw_curves, eps_curves, of_defenses, without_lambda
from bench.figures.subjects import chosen_rows
from bench.frames import cells_frame
from bench.leaderboard.rank import boards
from bench.leaderboard.sheet import write_boards
from bench.leaderboard.site.pages import index
from bench.names import defense_called, marked_tuned, short_name, short_names, tuned_name
from bench.repeats import repeats
from bench.report.comparison import contrast_line, contrast_text
from bench.report.matrix import matrix, render
from bench.report.worst import print_worst
from bench.selection import chosen_cells
from bench.store import CellRow, Store
from bench.tuning.notes import tuned_paragraph
from bench.worst import networks

NLIF = "nlif:noise_var=0.2656 (tuned: best of 8 trials; lr 0.3868; weight_decay 0.000295)"
VANILLA = "vanilla (tuned: best of 8 trials; the default)"
SUM = "tgo:lam_max=1e+2,noise_var=0.3+at (tuned: best of 20 trials; lr 0.1)"
OTHER = "nlif:noise_var=0.3 (tuned: best of 8 trials; lr 0.1)"
PLAIN = ("vanilla", "nlif:noise_var=0.3", "at (weights.safetensors)", "sr+at")


def test_a_stored_name_says_what_the_search_found() -> None:
    assert [short_name(name) for name in (NLIF, VANILLA, SUM)] == ["nlif (tuned)", "vanilla (tuned)", "tgo+at (tuned)"]
    settings = [tuned.settings for tuned in map(tuned_name, (NLIF, VANILLA, SUM)) if tuned]
    assert settings == [
        "noise_var 0.2656, lr 0.3868, weight_decay 0.000295", "the default",
        "tgo lam_max 1e+2, tgo noise_var 0.3, lr 0.1",
    ]  # fmt: skip
    half = tuned_name("tgo:lam_max=0.3" + marked_tuned("best of 2 trials; the default"))
    assert half and half.settings == "lam_max 0.3, otherwise the default"
    assert [(short_name(name), tuned_name(name)) for name in PLAIN] == [(name, None) for name in PLAIN]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from((NLIF, OTHER, VANILLA, SUM, *PLAIN)))))
def test_no_two_rows_are_shown_alike_and_every_shown_name_can_be_typed(rows: list[tuple[str, str]]) -> None:
    shown = short_names(rows)
    assert len({(place, name) for (place, _), name in shown.items()}) == len(shown) == len(set(rows))
    assert all(name in defense_called(stored) for (_, stored), name in shown.items())
    for place, stored in set(rows):
        if stored == NLIF:
            assert shown[place, stored] == (NLIF if (place, OTHER) in rows else "nlif (tuned)")


def test_a_note_says_what_the_names_stand_for_where_no_search_is_known() -> None:
    rows = [(("digits", "cnn-small"), name, "") for name in (NLIF, "at", VANILLA, NLIF)]
    assert tuned_paragraph(rows) == (
        "Tuned: nlif, best of 8 trials: noise_var 0.2656, lr 0.3868, weight_decay 0.000295; "
        "vanilla, best of 8 trials: the default."
    )
    elsewhere = tuned_paragraph([*rows[:2], (("digits", "vgg11"), OTHER, "")])
    assert elsewhere.count("nlif (cnn-small), best of 8 trials: noise_var 0.2656") == 1
    assert elsewhere.count("nlif (vgg11), best of 8 trials: noise_var 0.3, lr 0.1") == 1
    # Shown by their whole names they need no note; a search says more than a name.
    assert tuned_paragraph([((), NLIF, ""), ((), OTHER, "")]) == tuned_paragraph([((), "at", "")]) == ""
    assert tuned_paragraph([((), NLIF, "best of 9 trials"), ((), "at", "best of 2 trials")]) == (
        "Tuned: nlif with noise_var 0.2656, best of 9 trials. at, best of 2 trials."
    )


def named(rows: list[CellRow], names: dict[str, str]) -> list[CellRow]:
    """The same cells as if they had been run with tuned values."""
    return [replace(row, defense=names.get(row.defense, row.defense)) for row in rows]


def test_tables_boards_and_pages_have_room_for_them(full: Store, capsys: pytest.CaptureFixture[str]) -> None:
    rows = named(full.cells(), {"nlif": NLIF, "vanilla": VANILLA})
    table = matrix(rows)
    found = boards(full, rows)
    print_worst([(network, []) for network in networks(full, rows, "any")], "any")
    texts = [render(table, "md"), write_boards(found, "md"), index(found, {}), capsys.readouterr().out]
    for text in texts:
        read = " ".join(text.replace("\\", "").split())
        assert "nlif (tuned)" in read and "vanilla (tuned)" in read
        assert "nlif:noise_var" not in read
        # Once for all boards.
        assert read.count("Tuned: ") == read.count("noise_var 0.2656, lr 0.3868, weight_decay 0.000295") == 1
    for form in (render(table, "csv"), write_boards(found, "csv")):
        lines = list(csv.DictReader(io.StringIO(form)))
        assert {line["defense"] for line in lines} == {NLIF, VANILLA, "at"}


def test_curves_have_legends_one_can_read_and_data_with_the_stored_names(full: Store) -> None:
    cells = cells_frame(full, named(full.cells(), {"nlif": NLIF}))
    curves = eps_curves(cells, "fgsm")
    assert set(curves.points["curve"]) == {"vanilla", "at", NLIF}
    legend = draw_curves(curves).legends[0]
    assert {text.get_text() for text in legend.get_texts()} == {"vanilla", "at", "nlif (tuned)"}
    assert any("nlif, best of 8 trials: noise_var 0.2656" in note for note in curves.notes)
    assert set(of_defenses(cells, ["nlif"])["defense"]) == {NLIF}
    with pytest.raises(BenchError, match=r"stored are at, nlif \(tuned\), vanilla$"):
        of_defenses(cells, ["sr"])
    assert without_lambda("tgo:lam_max=0.3+at (tuned: best of 2 trials; lr 0.1)") == (
        "tgo+at (tuned: best of 2 trials; lr 0.1)"
    )
    assert pd.Series(["tgo:lam_max=0.2,delta=1+at"]).map(without_lambda).tolist() == ["tgo:delta=1+at"]


def test_a_figure_takes_the_paper_s_pair_as_typed_before_a_tuned_one(full: Store) -> None:
    tuned = named(full.cells(), {"vanilla": VANILLA, "at": "tgo:lam_max=0.3 (tuned: best of 8 trials; lr 0.2)"})
    pair = chosen_rows(tuned, [], full)
    assert [short_name(row.defense) for row in pair] == ["vanilla (tuned)", "tgo (tuned)"]
    typed = [replace(row, key="0" + row.key) for row in named(full.cells(), {"at": "tgo"})]
    assert [row.defense for row in chosen_rows([*typed, *tuned], [], full)] == ["vanilla", "tgo"]
    with pytest.raises(BenchError, match="no vanilla and tgo network"):
        chosen_rows(named(full.cells(), {"at": "tgo:lam_max=0.3 (tuned: best of 8 trials; lr 0.2)"}), [], full)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> Path:
    """Vanilla and MC, as typed and as tuned."""
    folder = tmp_path_factory.mktemp("tuned")

    def asked(defense: str, lr: float | None = None) -> None:
        recipe = {"epochs": 1, "batch_size": 32, "train_size": 64} | ({"lr": lr} if lr else {})
        note = marked_tuned(f"best of 8 trials; lr {lr}") if lr else ""
        measure(folder, tiny_request(tiny_npz, defenses=(defense,), attacks=("fgsm",), recipe=recipe, note=note))

    asked("vanilla")
    asked("vanilla", 0.05)
    asked("mc")
    asked("mc:delta=0.4", 0.02)
    return folder / "bench.sqlite"


def test_what_is_typed_finds_them(both: Path) -> None:
    store = Store(both)
    tuned = "vanilla (tuned: best of 8 trials; lr 0.05)"
    for typed, meant in {
        "vanilla": {"vanilla", tuned}, "vanilla (tuned)": {tuned}, tuned: {tuned}, "mc": {"mc", "mc:delta=0.4"},
        "mc:delta=0.4": {"mc:delta=0.4"},
    }.items():  # fmt: skip
        rows = chosen_cells(store, defenses=[typed])
        assert {row.defense.replace(" (tuned: best of 8 trials; lr 0.02)", "") for row in rows} == meant, typed
    with pytest.raises(BenchError, match=r"stored are mc, mc \(tuned\), vanilla, vanilla \(tuned\)$"):
        chosen_cells(store, defenses=["sr"])
    assert repeats(store, chosen_cells(store, defenses=["vanilla"]), "last").title.startswith("vanilla under")
    store.close()


def test_tuned_is_compared_with_tuned_and_typed_with_typed(both: Path) -> None:
    store = Store(both)
    mc, vanilla, chosen = (
        chosen_cells(store, defenses=[name]) for name in ("mc (tuned)", "vanilla", "vanilla (tuned)")
    )
    found = compare(store, mc, vanilla)
    assert (found.first, found.second) == ("mc (tuned)", "vanilla (tuned)")
    # What each one's search chose is no difference of the two trainings.
    assert found.notes == ("left out: 1 cell of vanilla trained with lr 0.1",)
    assert "Tuned: mc, best of 8 trials: delta 0.4, lr 0.02; vanilla, best of 8" in contrast_text(found, "md")
    line = contrast_line(found, found.comparisons[0])
    assert line["first_defense"] == "mc:delta=0.4 (tuned: best of 8 trials; lr 0.02)"
    found = compare(store, [row for row in vanilla if row not in chosen], chosen)
    assert (found.first, found.second) == ("vanilla", "vanilla (tuned)")
    assert found.notes == (
        "the two were trained with other lr", "only vanilla (tuned) has values that a search found",
    )  # fmt: skip
    # A name that fits both does not let the tuned one stand against itself.
    found = compare(store, vanilla, chosen)
    assert (found.first, found.second) == ("vanilla", "vanilla (tuned)")
    store.close()


def test_of_two_that_are_stored_both_ways_those_as_typed_are_compared(both: Path) -> None:
    store = Store(both)
    vanilla, mc = (chosen_cells(store, defenses=[name]) for name in ("vanilla", "mc"))
    found = compare(store, vanilla, mc)
    assert (found.first, found.second) == ("vanilla", "mc")
    assert found.notes == (
        "left out: 1 cell of vanilla (tuned) trained with lr 0.05",
        "left out: 1 cell of mc (tuned) trained with lr 0.02",
    )
    store.close()
