"""Whether a difference is real: on made outcomes, and as a user asks it."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import Run

from bench.comparison import WORST, compare, sentence
from bench.errors import BenchError
from bench.selection import chosen_cells
from bench.statistics import mcnemar
from bench.store import Store


def test_the_numbers_are_those_of_the_stored_outcomes(full: Store) -> None:
    one, two = (chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at"))
    contrast = compare(full, one, two)
    names = [comparison.attack for comparison in contrast.comparisons]
    assert names == ["clean", "fgsm", "pgd3", WORST]
    outcomes = {}
    for row in (*one, *two):
        if row.seed == 0:
            outcomes[row.defense, row.attack] = full.outcome(row.key)
    for comparison in contrast.comparisons[:3]:
        a, b = (outcomes[name, comparison.attack].robust_last > 0.5 for name in ("vanilla", "at"))  # type: ignore[union-attr]
        gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
        assert (comparison.paired.only_first, comparison.paired.only_second) == (gained, lost)
        assert comparison.paired.p == pytest.approx(mcnemar(gained, lost, "two-sided"))
        assert comparison.p >= comparison.paired.p
        assert comparison.seeds is not None
        assert len(comparison.seeds.first) == 2
    worst = contrast.comparisons[-1].paired
    stands = np.minimum.reduce([outcomes["vanilla", name].robust_last for name in ("fgsm", "pgd3")])  # type: ignore[union-attr]
    assert worst.first.value == pytest.approx(stands.mean())


def test_a_network_cannot_be_told_from_itself(full: Store) -> None:
    rows = chosen_cells(full, defenses=["at"], attacks=["fgsm"], eps="0.1", seed=0)
    contrast = compare(full, rows, rows)
    assert contrast.comparisons[0].p == 1
    assert "cannot be told apart" in sentence(contrast, contrast.comparisons[0])


def test_a_noisy_network_is_compared_by_its_shares_of_draws(full: Store) -> None:
    one, two = (chosen_cells(full, defenses=[name], attacks=["fgsm"], eps="0.1") for name in ("nlif", "vanilla"))
    (comparison,) = compare(full, one, two).comparisons
    assert "noise" in comparison.notes
    assert comparison.paired.first.value * 160 * 5 == pytest.approx(round(comparison.paired.first.value * 160 * 5))
    assert "sign-flip" in sentence(compare(full, one, two), comparison)


def test_other_budgets_are_no_comparison(full: Store) -> None:
    one = chosen_cells(full, defenses=["at"], attacks=["fgsm"], eps="0.1")
    two = chosen_cells(full, defenses=["vanilla"], attacks=["fgsm"], eps="0.2")
    with pytest.raises(BenchError, match="nothing to compare"):
        compare(full, one, two)


def test_from_the_command_line(bench: Run, results: Path, tmp_path: Path) -> None:
    shown = bench("compare", "at", "vanilla", "--attack", "fgsm", "--eps", "0.1")
    assert shown.returncode == 0, shown.stderr
    first = shown.stdout.splitlines()[0]
    assert first.endswith(".")
    assert "on the same 160 images" in first
    assert "training seeds" in first
    data = json.loads(bench("compare", "at", "vanilla", "--json").stdout)
    # Each attack at each budget.
    both = [f"{name} at eps {eps}" for name in ("fgsm", "pgd3") for eps in ("0.1", "0.2")]
    assert [line["attack"] for line in data] == ["clean", *both, f"{WORST} at eps 0.1", f"{WORST} at eps 0.2"]
    keys = [row.key[:12] for row in Store(results / "bench.sqlite").cells(attack="pgd3", seed=0, eps="1/10")]
    assert bench("compare", *keys[:2]).returncode == 0
    for arguments, complaint in (
        (["at", "nothing"], "no finished cell has the defense 'nothing'; stored are at, nlif, vanilla"),
        (["at", "vanilla", "--level", "2"], "--level must lie between 0 and 1"),
        (["at", "vanilla", "--store", "none.sqlite"], "there is no store 'none.sqlite'"),
    ):
        wrong = bench("compare", *arguments)
        assert wrong.returncode == 2
        assert complaint in wrong.stderr
        assert wrong.stderr.count("\n") == 1


def test_variance_from_the_command_line(bench: Run, results: Path) -> None:
    shown = bench("variance", "-d", "nlif", "-a", "fgsm", "--eps", "0.1")
    assert shown.returncode == 0, shown.stderr
    assert "standard error of" in shown.stdout
    assert "--attack-seed 1" in shown.stdout
    lines = {
        line["source"]: line
        for line in json.loads(bench("variance", "-d", "nlif", "-a", "fgsm", "--eps", "0.1", "--json").stdout)
    }
    assert lines["training seed"]["levels"] == 2
    assert lines["attack seed"]["variance"] is None
    assert lines["draw"]["levels"] == 5
    wrong = bench("variance", "-d", "nlif", "-a", "fgsm")
    assert wrong.returncode == 2
    assert "choose with --dataset, --model, --eps" in wrong.stderr
