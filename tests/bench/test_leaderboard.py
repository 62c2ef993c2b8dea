"""Who is ranked where, and why not."""

import csv
import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import Run

from bench.leaderboard.entry import Board, Entry
from bench.leaderboard.met import draws_asked
from bench.leaderboard.rank import boards, division_of
from bench.leaderboard.sheet import boards_frame, write_boards
from bench.statistics import over_seeds
from bench.store import CellRow, Store


def of(found: list[Board], division: str, eps: str = "1/5") -> Board:
    return next(board for board in found if (board.division, board.eps) == (division, eps))


def named(board: Board, defense: str) -> Entry:
    return next(entry for entry in board.entries if entry.defense == defense)


def test_the_worst_case_is_taken_per_image_and_then_over_seeds(full: Store) -> None:
    rows = full.cells()
    entry = named(of(boards(full, rows), "deterministic"), "at")
    rates = []
    for seed in (0, 1):
        outcomes = [
            full.outcome(row.key)
            for row in rows
            if (row.defense, row.seed, row.eps) == ("at", seed, "1/5") and row.attack != "clean"
        ]
        assert len(outcomes) == 2
        rates.append(np.minimum.reduce([o.robust_any for o in outcomes if o is not None]).mean())
    expected = over_seeds(rates)
    assert entry.worst.values == pytest.approx(rates)
    assert entry.worst[:3] == pytest.approx((expected.value, max(0, expected.low), min(1, expected.high)))
    assert [seed.seed for seed in entry.seeds] == [0, 1]
    # 1 forward and backward of FGSM, 3 of PGD-3.
    assert entry.passes == 8


def test_divisions_and_budgets_are_never_mixed(full: Store) -> None:
    found = boards(full, full.cells())
    assert [(board.division, board.eps) for board in found] == [
        ("deterministic", "1/5"), ("deterministic", "1/10"), ("stochastic", "1/5"), ("stochastic", "1/10"),
    ]  # fmt: skip
    assert {entry.defense for entry in of(found, "deterministic").entries} == {"vanilla", "at"}
    assert {entry.defense for entry in of(found, "stochastic").entries} == {"nlif"}
    slugs = [entry.slug for board in found for entry in board.entries]
    assert len(set(slugs)) == len(slugs)


def test_nobody_leads_for_having_met_fewer_attacks(full: Store) -> None:
    rows = [row for row in full.cells() if not (row.defense == "vanilla" and row.attack == "pgd3")]
    board = of(boards(full, rows), "deterministic")
    assert board.required == ("fgsm", "pgd3")
    vanilla = named(board, "vanilla")
    assert vanilla.rank is None
    assert vanilla.missing == ("pgd3",)
    assert "has not met pgd3" in vanilla.why
    assert named(board, "at").rank == 1
    assert board.entries[-1] == vanilla
    easy = of(boards(full, rows, ["fgsm"]), "deterministic")
    assert {entry.rank for entry in easy.entries} == {1, 2}


def test_a_seed_that_met_fewer_attacks_does_not_count(full: Store) -> None:
    rows = [row for row in full.cells() if not (row.defense == "at" and row.attack == "pgd3" and row.seed == 1)]
    entry = named(of(boards(full, rows), "deterministic"), "at")
    assert [seed.seed for seed in entry.seeds] == [0]


def test_one_more_attack_on_one_seed_does_not_drop_the_others(full: Store) -> None:
    """Else whoever attacks the luckiest seed once more is ranked by it alone."""
    rows = [row for row in full.cells() if row.defense == "vanilla" and row.eps == "1/5"]
    more = next(row for row in rows if row.attack == "fgsm" and row.seed == 1)
    others = [row for row in full.cells() if row.defense == "at" and row.eps == "1/5"]
    entry = named(of(boards(full, [*rows, replace(more, attack="extra"), *others]), "deterministic"), "vanilla")
    assert [seed.seed for seed in entry.seeds] == [0, 1]
    assert entry.rank is not None


def test_only_noise_makes_a_network_stochastic(full: Store) -> None:
    """Neurons that adapt or learn are deterministic; an encoding that draws is noise, whatever the neurons."""

    def of_kind(kind: str, encoder: str = "", **changed: int) -> CellRow:
        model = row.spec["model"]
        spec = (
            model
            | {"neuron": model["neuron"] | {"kind": kind, "params": []}}
            | ({"encoder": encoder} if encoder else {})
        )
        return replace(row, spec=row.spec | {"model": spec} | changed)

    row = next(row for row in full.cells() if (row.defense, row.attack, row.eps) == ("vanilla", "pgd3", "1/5"))
    quiet = [of_kind("lif"), of_kind("dlif"), of_kind("el"), of_kind("hosnn"), of_kind("lif", "frequency:step=0.125")]
    noisy = [of_kind("nlif"), of_kind("stog"), of_kind("lif", "poisson"), of_kind("lif", noise_version=2)]
    assert [division_of(each) for each in quiet] == ["deterministic"] * 5
    assert [division_of(each) for each in noisy] == ["stochastic"] * 4
    assert [len(boards(full, [each])) for each in (*quiet, *noisy)] == [1] * 5 + [0] * 4


def averaged(rows: list[CellRow], draws: int, defense: str) -> list[CellRow]:
    """Another network under the same attacks, PGD with a mean over so many draws."""

    def under(row: CellRow) -> CellRow:
        named = replace(row, defense=defense, weights_key=f"file:{defense}")
        if row.attack != "pgd3" or draws == 1:
            return named
        attack = row.spec["attack"] | {"eot": draws}
        return replace(named, attack=f"pgd3:eot={draws}", spec=row.spec | {"attack": attack})

    return [under(row) for row in rows]


def test_a_mean_over_more_draws_meets_one_over_fewer_and_not_the_other_way_round(full: Store) -> None:
    noisy = [row for row in full.cells() if (row.defense, row.seed, row.eps) == ("nlif", 0, "1/5")]
    one, five, twenty = (averaged(noisy, draws, f"eot{draws}") for draws in (1, 5, 20))

    def ranks(rows: list[CellRow], *required: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...] | None]]:
        (board,) = boards(full, rows, required)
        return board.required, {e.defense: None if e.rank else e.missing for e in board.entries}

    # Half of them met it over 20 draws: nobody leads for having met fewer.
    assert ranks([*one, *twenty]) == (("fgsm", "pgd3:eot=20"), {"eot20": None, "eot1": ("pgd3:eot=20",)})
    assert ranks([*one, *five, *twenty]) == (
        ("fgsm", "pgd3:eot=5"),
        {"eot5": None, "eot20": None, "eot1": ("pgd3:eot=5",)},
    )
    assert ranks([*one, *five, *twenty], "pgd3")[1] == {"eot1": None, "eot5": None, "eot20": None}
    assert ranks([*one, *five, *twenty], "pgd3:eot=20") == (
        ("pgd3:eot=20",),
        {"eot20": None, "eot1": ("pgd3:eot=20",), "eot5": ("pgd3:eot=20",)},
    )
    # Both attacks of one network cost something, and both are shown.
    both = [*averaged(noisy, 1, "both"), *averaged(noisy, 20, "both")]
    (board,) = boards(full, both)
    assert board.required == ("fgsm", "pgd3:eot=20")
    assert board.entries[0].passes > boards(full, one)[0].entries[0].passes
    assert {"under pgd3", "under pgd3:eot=20"} <= set(boards_frame([board]).columns)


def test_a_network_without_noise_meets_any_mean_with_the_plain_attack(full: Store) -> None:
    board = of(boards(full, full.cells(), ["pgd3:eot=20"]), "deterministic")
    assert board.required == ("pgd3",)
    assert all(entry.rank for entry in board.entries)
    noisy = of(boards(full, full.cells(), ["pgd3:eot=20"]), "stochastic")
    assert [entry.missing for entry in noisy.entries] == [("pgd3:eot=20",)]
    # Also where it is scored over several draws, among the noisy ones.
    many = [replace(row, draws=3) for row in full.cells() if (row.defense, row.eps) == ("vanilla", "1/5")]
    assert all(entry.rank for entry in boards(full, many, ["pgd3:eot=20"])[0].entries)


def test_an_attack_that_takes_a_mean_by_itself_asks_for_it() -> None:
    assert draws_asked("autoattack-rand") == 20
    assert draws_asked("autoattack-rand:eot=5") == 5
    assert (draws_asked("pgd40"), draws_asked("pgd40:alpha=0.01,eot=3@rga"), draws_asked("unknown7")) == (1, 3, 1)


def test_what_is_left_out_of_a_ranked_entry_is_said(full: Store) -> None:
    rows = [
        replace(row, verdict="invalid") if (row.defense, row.attack, row.seed) == ("at", "pgd3", 1) else row
        for row in full.cells()
    ]
    board = of(boards(full, rows), "deterministic")
    entry = named(board, "at")
    assert entry.rank is not None
    assert [seed.seed for seed in entry.seeds] == [0]
    assert len(entry.left_out) == 2
    assert entry.left_out[0].startswith("pgd3 on seed 1 is invalid")
    assert entry.left_out[1] == "seed 1 has not met pgd3"
    for form in ("text", "md", "csv", "json", "latex"):
        assert "seed 1 has not met pgd3" in " ".join(write_boards([board], form).split()), form
    assert not named(board, "vanilla").left_out


def test_intervals_stay_where_rates_are(full: Store) -> None:
    for board in boards(full, full.cells()):
        for entry in board.entries:
            assert 0 <= entry.worst.low <= entry.worst.value <= entry.worst.high <= 1
            assert 0 <= entry.clean.low <= entry.clean.value <= entry.clean.high <= 1


def marked(rows: list[CellRow], defense: str, verdict: str) -> list[CellRow]:
    return [replace(row, verdict=verdict) if row.defense == defense else row for row in rows]


def test_suspect_is_marked_and_invalid_listed_below(full: Store) -> None:
    suspect = of(boards(full, marked(full.cells(), "at", "suspect")), "deterministic")
    assert named(suspect, "at").rank is not None
    assert named(suspect, "at").verdict == "suspect"
    text = write_boards([suspect], "text")
    assert "†" in text
    assert "suspect, perhaps too high" in text
    invalid = of(boards(full, marked(full.cells(), "at", "invalid")), "deterministic")
    assert named(invalid, "at").rank is None
    assert "Not ranked: at (cnn-small) all its cells are invalid" in write_boards([invalid], "md")
    assert named(invalid, "vanilla").rank == 1


def test_equal_networks_share_a_rank_and_are_not_set_apart(full: Store) -> None:
    rows = [row for row in full.cells() if row.defense == "vanilla" and row.seed == 0 and row.eps == "1/5"]
    twin = [replace(row, weights_key="file:" + "0" * 64, defense="copy") for row in rows]
    board = of(boards(full, [*rows, *twin]), "deterministic")
    assert [entry.rank for entry in board.entries] == [1, 1]
    assert board.entries[0].apart is not None
    assert board.entries[0].apart >= 0.5
    assert board.entries[-1].apart is None


def test_a_clearly_better_network_is_set_apart(full: Store) -> None:
    rows = [row for row in full.cells() if row.seed == 0 and row.eps == "1/5" and row.draws == 1]
    ranked = of(boards(full, rows), "deterministic").entries
    stands = [entry.seeds[0].stands for entry in ranked]
    gained, lost = int((stands[0] > stands[1]).sum()), int((stands[0] < stands[1]).sum())
    from bench.statistics import mcnemar

    assert ranked[0].apart == pytest.approx(mcnemar(gained, lost, "two-sided"))


def test_every_format_holds_every_entry(full: Store) -> None:
    found = boards(full, full.cells())
    lines = list(csv.DictReader(io.StringIO(write_boards(found, "csv"))))
    data = json.loads(write_boards(found, "json"))
    assert len(lines) == len(data) == len(boards_frame(found)) == 6
    for column in ("rank", "worst", "worst_low", "verdict", "n", "commit", "passes_per_image", "repeat", "under pgd3"):
        assert column in lines[0]
    for form in ("text", "md", "latex"):
        text = write_boards(found, form)
        for entry in found[0].entries:
            assert f"{100 * entry.worst.value:.1f}" in text


def test_no_two_boards_of_a_paper_have_one_label(full: Store) -> None:
    labels = re.findall(r"\\label\{([^}]*)\}", write_boards(boards(full, full.cells()), "latex"))
    assert len(labels) == len(set(labels)) == 4


def test_the_repeat_command_measures_these_very_cells(bench: Run, results: Path, full: Store, tiny_npz: Path) -> None:
    entry = named(of(boards(full, full.cells()), "deterministic"), "at")
    arguments = shlex.split(entry.repeat)[1:]
    # A dataset of one's own is stored under its file's name.
    arguments[arguments.index("--dataset") + 1] = str(tiny_npz)
    done = bench(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["computed"] == 0


def test_the_repeat_command_names_whatever_is_unusual(bench: Run, results: Path, full: Store, tiny_npz: Path) -> None:
    options = ["-d", "nlif", "-a", "fgsm", "--dataset", tiny_npz, "--eps", "0.1", "--draws", "3", "--epochs", "1"]
    done = bench("run", *options, "--surrogate", "arctan:alpha=3", "--decay", "0.6", "-T", "2")
    assert done.returncode == 0, done.stderr
    board = next(b for b in boards(full, [r for r in full.cells() if r.spec["model"]["T"] == 2]))
    for option in ("--draws 3", "--surrogate arctan:alpha=3", "--decay 0.6", "-T 2"):
        assert option in board.entries[0].repeat
    arguments = shlex.split(board.entries[0].repeat)[1:]
    arguments[arguments.index("--dataset") + 1] = str(tiny_npz)
    again = bench(*arguments, "--json")
    assert json.loads(again.stdout)["computed"] == 0


def test_from_the_command_line(bench: Run, results: Path) -> None:
    shown = bench("leaderboard", "--division", "deterministic", "--eps", "0.1", "--format", "md")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("| rank |") == 1
    assert "Required: fgsm, pgd3" in shown.stdout
    for arguments, complaint in (
        (["--division", "quantum"], "unknown division 'quantum'"),
        (["--defense", "nothing"], "no finished cell has the defense 'nothing'"),
        (["--format", "pdf"], "unknown format 'pdf'"),
    ):
        wrong = bench("leaderboard", *arguments)
        assert wrong.returncode == 2
        assert complaint in wrong.stderr
