"""Whether a difference is real: on made outcomes, and as a user asks it."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from measuring import measure, tiny_request
from support import Run

from bench.comparison import FAVOURS, WORST, Comparison, Contrast, SeedContrast, compare
from bench.errors import BenchError
from bench.exchange.bundle import bundle_json, bundle_of_json, collect_bundle
from bench.exchange.merge import merge_bundle
from bench.repeats import advice, repeats
from bench.report.comparison import sentence, sentences
from bench.selection import chosen_cells
from bench.statistics import Paired, holm, mcnemar, wilson
from bench.statistics.variance import split_variance
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
        # Without attack all seeds agree, which says nothing on how much seeds differ.
        assert (comparison.seeds is None) == (comparison.attack == "clean")
        if comparison.seeds:
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
    # Training seeds are most of the error, so more of these come first.
    assert "Most of the error comes from the training seed" in " ".join(shown.stdout.split())
    assert "--seed 0,1,2,3" in " ".join(shown.stdout.split())
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


def test_the_worst_case_is_asked_over_seeds_as_well(full: Store) -> None:
    one, two = (chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at"))
    contrast = compare(full, one, two)
    worst = contrast.comparisons[-1]
    assert worst.attack == WORST
    assert worst.seeds is not None
    for rows, rates in ((one, worst.seeds.first), (two, worst.seeds.second)):
        for seed, rate in enumerate(rates):
            outcomes = [full.outcome(row.key) for row in rows if row.seed == seed and row.attack != "clean"]
            stands = np.logical_and.reduce([found.stands("last") for found in outcomes if found is not None])
            assert rate == pytest.approx(stands.mean())
    assert "training seeds" in sentence(contrast, worst)


def test_seeds_are_a_family_of_tests_too(full: Store) -> None:
    one, two = (chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at"))
    seeds = [c.seeds for c in compare(full, one, two).comparisons if c.seeds]
    assert len(seeds) == 3
    assert [each.p_holm for each in seeds] == pytest.approx(holm([each.p for each in seeds]))


def test_the_interval_is_of_the_difference_that_the_sentence_states() -> None:
    rates = [wilson(60.0, 100), wilson(70.0, 100)]
    paired = Paired(100, rates[0], rates[1], -0.1, -0.2, 0.01, 3, 13, 0.001)
    seeds = SeedContrast((0.6, 0.62, 0.61), (0.7, 0.72), -0.1, -0.13, -0.07, 0.002, 0.004)
    contrast = Contrast("a", "b", 0.05, "last", (Comparison("pgd7", paired, 0.001, seeds),))
    said = sentence(contrast, contrast.comparisons[0])
    assert said.startswith("b is right on 10.0 points more images than a under pgd7 (70.0 against 60.0")
    assert "difference -1.0 to +20.0" in said
    assert said.endswith("real, and of the recipes: over 2 and 3 training seeds +7.0 to +13.0, p = 0.004.")


def test_networks_that_were_trained_otherwise_do_not_mix(results: Path, full: Store, tiny_npz: Path) -> None:
    before = compare(full, *(chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at")))
    short = {"epochs": 1, "batch_size": 16, "train_size": 96}
    measure(results, tiny_request(tiny_npz, defenses=("at",), attacks=("fgsm", "pgd3"), seeds=(0, 5), recipe=short))
    one, two = (chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at"))
    contrast = compare(full, one, two)
    assert contrast.comparisons == before.comparisons
    assert contrast.notes == ("left out: 4 cells of at trained with epochs 1",)
    # Named by key, they are compared, and what differs is said.
    brief = [row for row in two if row.seed == 5 and row.attack == "fgsm"]
    named = compare(full, [row for row in one if row.attack == "fgsm"], brief)
    assert named.notes == ("the two were trained with other epochs",)
    assert "training seed 0 against 5" in named.comparisons[0].notes


def test_another_seed_of_the_attack_is_not_mixed_in(results: Path, full: Store, tiny_npz: Path) -> None:
    before = compare(full, *(chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at")))
    measure(results, tiny_request(tiny_npz, defenses=("at",), attacks=("pgd3",), seeds=(0,), attack_seed=1))
    after = compare(full, *(chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at")))
    assert after == before
    alone = [row for row in full.cells(attack="pgd3") if row.spec["attack_seed"] == 1]
    other = full.cells(attack="pgd3", defense="vanilla", eps="1/10", seed=0)
    assert "other attack seeds" in compare(full, alone, other).comparisons[0].notes


def test_a_twin_is_no_further_seed(full: Store) -> None:
    data = bundle_json(collect_bundle(full, full.cells(defense="at", eps="1/10", seed=0)))
    for known in data["weights"].values():
        known["sha256"] = "0" * 64
    merge_bundle(full, bundle_of_json(data, "theirs"), note={"file": "theirs"})
    one, two = (chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at"))
    found = compare(full, one, two).comparisons[-1]
    assert found.seeds is not None
    assert (len(found.seeds.first), len(found.seeds.second)) == (2, 2)


def test_gradients_averaged_over_draws_are_another_attack_of_a_noisy_network(results: Path, tiny_npz: Path) -> None:
    attacks = ("pgd3", "pgd3:eot=2")
    measure(results, tiny_request(tiny_npz, defenses=("nlif", "vanilla"), attacks=attacks, seeds=(0,)))
    store = Store(results / "bench.sqlite")
    one, two = (chosen_cells(store, defenses=[name], attacks=["pgd3"], eps="0.1") for name in ("nlif", "vanilla"))
    contrast = compare(store, one, two)
    assert "no worst case: with noise it is estimated from few draws, without it is exact" in contrast.notes
    found = {c.attack: c for c in contrast.comparisons}
    assert set(found) == {"pgd3", "pgd3:eot=2"}
    assert found["pgd3"].paired.second == found["pgd3:eot=2"].paired.second
    assert "gradients are means over draws for the noisy one only" in found["pgd3:eot=2"].notes


def test_a_split_mixes_no_trainings_and_advises_the_same_measurement(
    results: Path, full: Store, tiny_npz: Path, bench: Run
) -> None:
    before = repeats(full, chosen_cells(full, defenses=["at"], attacks=["pgd3"], eps="0.1"), "last")
    short = {"epochs": 1, "batch_size": 16, "train_size": 96}
    measure(results, tiny_request(tiny_npz, defenses=("at",), attacks=("pgd3",), seeds=(0,), recipe=short))
    after = repeats(full, chosen_cells(full, defenses=["at"], attacks=["pgd3"], eps="0.1"), "last")
    assert np.array_equal(after.correct, before.correct)
    assert after.left_out == "1 cell with epochs 1"
    shown = bench("variance", "-d", "at", "-a", "pgd3", "--eps", "0.1").stdout
    assert "Left out: 1 cell with epochs 1." in shown
    said = advice(after, split_variance(after.correct), full)
    words = shlex.split(said[said.index("bench run") :])
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert (options["--epochs"], options["--batch-size"], options["--train-size"]) == ("6", "16", "96")
    assert (options["--eps"], options["-n"], options["-a"]) == ("0.1", "160", "pgd3")


def test_two_networks_of_one_recipe_are_two(full: Store) -> None:
    first, second = (full.cells(attack="pgd3", defense="vanilla", eps="1/10", seed=seed) for seed in (0, 1))
    for one, two in ((first, second), (second, first)):
        (found,) = compare(full, one, two).comparisons
        assert found.paired.first.value == pytest.approx(one[0].summary.robust.value)  # type: ignore[union-attr]
        assert found.paired.second.value == pytest.approx(two[0].summary.robust.value)  # type: ignore[union-attr]
    (found,) = compare(full, full.cells(defense="at", eps="1/10"), full.cells(defense="at", eps="1/10")[:1]).comparisons
    assert found.attack == full.cells(defense="at", eps="1/10")[0].attack


def test_norms_and_sizes_are_told_apart(results: Path, full: Store, tiny_npz: Path) -> None:
    more = {"defenses": ("vanilla", "at"), "attacks": ("fgsm",), "seeds": (0,)}
    measure(results, tiny_request(tiny_npz, norm="l2", **more), tiny_request(tiny_npz, n=64, **more))
    one, two = (chosen_cells(full, defenses=[name], eps="0.1") for name in ("vanilla", "at"))
    names = [c.attack for c in compare(full, one, two).comparisons]
    assert len(set(names)) == len(names)
    assert {"fgsm l2, n 160", "fgsm linf, n 160", "fgsm linf, n 64"} <= set(names)


def test_recipes_may_say_otherwise_than_the_networks_of_one_seed() -> None:
    rates = [wilson(70.0, 100), wilson(60.0, 100)]
    paired = Paired(100, rates[0], rates[1], 0.1, 0.02, 0.2, 13, 3, 0.001)
    seeds = SeedContrast((0.7, 0.5, 0.5), (0.6, 0.6), -0.05, -0.08, -0.02, 0.002, 0.004)
    contrast = Contrast("a", "b", 0.05, "last", (Comparison("pgd7", paired, 0.001, seeds),))
    said = sentence(contrast, contrast.comparisons[0])
    assert "but of the recipes b is the better one: over 3 and 2 training seeds -8.0 to -2.0" in said


def test_advice_keeps_the_levels_that_are_there(results: Path, full: Store, tiny_npz: Path) -> None:
    measure(results, tiny_request(tiny_npz, defenses=("at",), attacks=("pgd3",), seeds=(0, 1), attack_seed=1))
    found = repeats(full, chosen_cells(full, defenses=["at"], attacks=["pgd3"], eps="0.1"), "last")
    assert (found.training_seeds, found.attack_seeds) == ((0, 1), (0, 1))
    said = advice(found, split_variance(found.correct), full)
    runs = said[said.index("bench run") :].split(" && ")
    if "training seed" in said.partition(":")[0]:
        assert [("--attack-seed 1" in run, "--seed 0,1,2,3" in run) for run in runs] == [(False, True), (True, True)]
    elif "attack seed" in said.partition(":")[0]:
        assert len(runs) == 1
        assert "--attack-seed 2" in runs[0]
    else:
        assert ["--attack-seed 1" in run for run in runs] == [False, True]
        assert all("-n 320" in run for run in runs)


def test_a_network_is_not_compared_with_itself(bench: Run, results: Path) -> None:
    wrong = bench("compare", "at", "at")
    assert wrong.returncode == 2
    assert "are the same networks" in wrong.stderr


def test_any_iterate_of_a_noisy_network_is_not_that_of_another(full: Store) -> None:
    one, two = (chosen_cells(full, defenses=[name], attacks=["pgd3"], eps="0.1") for name in ("nlif", "vanilla"))
    contrast = compare(full, one, two, iterate="any")
    assert FAVOURS in contrast.comparisons[0].notes
    assert f"Doubtful: {FAVOURS}." in sentence(contrast, contrast.comparisons[0])
    assert FAVOURS not in compare(full, one, two).comparisons[0].notes


def test_a_worst_case_that_cannot_be_had_is_named(results: Path, tiny_npz: Path, full: Store) -> None:
    measure(results, tiny_request(tiny_npz, defenses=("nlif",), attacks=("fgsm", "pgd3"), seeds=(0,), draws=2))
    rows = [row for row in full.cells(defense="nlif", eps="1/10", seed=0) if row.attack != "clean"]
    few, many = ([row for row in rows if row.draws == draws] for draws in (2, 5))
    contrast = compare(full, few, many)
    assert {c.attack for c in contrast.comparisons} == {"fgsm", "pgd3"}
    assert "no worst case: no network met all attacks, or the two have unlike numbers of draws" in contrast.notes


def test_sentences_alone_are_those_above_the_table(bench: Run, results: Path, full: Store) -> None:
    one, two = (chosen_cells(full, defenses=[name], attacks=["fgsm"], eps="0.1") for name in ("at", "vanilla"))
    expected = sentences(compare(full, one, two))
    assert len(expected) == 1
    chosen = ("compare", "at", "vanilla", "-a", "fgsm", "--eps", "0.1", "--sentences")
    assert bench(*chosen).stdout.splitlines() == expected
    assert bench(*chosen, "--format", "md").stdout.splitlines() == [f"- {text}" for text in expected]
    wrong = bench(*chosen, "--format", "csv")
    assert wrong.returncode == 2
    assert "--sentences are text or md" in wrong.stderr
