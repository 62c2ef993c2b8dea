"""The gate: what it catches, what it lets pass, what it refuses to compare."""

import base64
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import multinomial
from support import Run

from bench.canonical import canonical_json
from bench.exchange.bundle import Bundle, bundle_json, bundle_of_json, collect_bundle
from bench.exchange.files import write_results
from bench.exchange.merge import merge_bundle
from bench.gate.check import NOT_COMPARABLE, NOT_MEASURED, OK, REGRESSION, Check, Pair, _sum_up, judge, run_check
from bench.gate.junit import junit_xml
from bench.gate.power import chance_of_failing, largest_churn, largest_size
from bench.gate.report import check_json, check_markdown, check_text
from bench.gate.simulate import measurements, simulated, verdicts
from bench.outcome import Outcome
from bench.store import Store


def baseline(full: Store, **changes: Any) -> Bundle:
    """The store's own cells as an earlier measurement."""
    data = bundle_json(collect_bundle(full, [row for row in full.cells() if row.eps == "1/5"]))
    for cell in data["cells"]:
        cell["updated"] = "2020-01-01T00:00:00+00:00"
    for change in changes.values():
        change(data)
    return bundle_of_json(data, "baseline")


def rekeyed(cell: dict[str, Any]) -> None:
    import hashlib

    cell["key"] = hashlib.sha256(canonical_json(cell["spec"]).encode()).hexdigest()


def stronger(share: float) -> Any:
    """The baseline stood on `share` more of the images."""

    def change(data: dict[str, Any]) -> None:
        for cell in data["cells"]:
            if cell["labels"]["attack"] != "pgd3" or cell["labels"]["defense"] != "vanilla":
                continue
            outcome = Outcome.unpack(base64.b64decode(cell["outcome"]))
            fallen = np.flatnonzero(~(outcome.clean & outcome.last).all(1))[: round(share * outcome.n)]
            clean, last = outcome.clean.copy(), outcome.last.copy()
            clean[fallen] = last[fallen] = True
            parts = (clean, last, outcome.best, outcome.margin_clean, outcome.margin_last, outcome.flags)
            cell["outcome"] = base64.b64encode(Outcome(*parts).pack()).decode()

    return change


def test_the_same_outcomes_pass(full: Store) -> None:
    check = run_check(full, baseline(full))
    assert check.status == OK
    assert len(check.lines) == 6 + 12
    assert all(line.p == 1 for line in check.lines)
    assert "No regression" in check.headline


def test_a_loss_is_a_regression_and_a_gain_is_not(full: Store) -> None:
    check = run_check(full, baseline(full, fell=stronger(0.2)))
    assert check.status == REGRESSION
    worse = [line for line in check.lines if line.status == REGRESSION]
    assert {line.attack for line in worse} >= {"pgd3 linf 0.2"}
    assert {line.network.split(" /")[0] for line in worse} == {"vanilla"}
    assert "Robustness fell" in check.headline
    swapped = [Pair("n", "a", "", np.zeros(100), np.ones(100), (1, 1))]
    assert [line.says for line in judge(swapped, 0.01, 0.01)] == ["better"]


def gained(lost: int, won: int, n: int = 500) -> Pair:
    """Of n images so many fell and so many were won."""
    before, now = np.zeros(n), np.zeros(n)
    before[:lost], now[lost : lost + won] = 1, 1
    return Pair("n", "a", "", before, now, (1, 1))


@pytest.mark.parametrize(
    ("lost", "won", "p", "says"),
    [
        # McNemar's exact test, two-sided, by hand: 2 (C(n, 0) + ... + C(n, k)) / 2^n.
        (0, 8, 2 / 2**8, "rise"),
        (8, 0, 2 / 2**8, "regression"),
        (1, 10, 2 * (1 + 11) / 2**11, "better"),
        (2, 15, 2 * (1 + 17 + 136) / 2**17, "rise"),
        (0, 7, 2 / 2**7, "better"),
        (5, 5, 1.0, "ok"),
        (0, 0, 1.0, "ok"),
    ],
)
def test_both_ways_a_rise_fails_by_the_exact_two_sided_test(lost: int, won: int, p: float, says: str) -> None:
    (line,) = judge([gained(lost, won)], 0.01, 0.01, both_ways=True)
    assert line.p == pytest.approx(p, rel=1e-12)
    assert line.says == says
    assert line.status == (REGRESSION if says in ("rise", "regression") else OK)


def test_both_ways_corrects_for_the_family_and_for_small_effects() -> None:
    lines = judge([gained(0, 8), gained(0, 0), gained(9, 0)], 0.01, 0.01, both_ways=True)
    assert [line.p for line in lines] == pytest.approx([2 * 2 / 2**8, 1.0, 3 * 2 / 2**9])
    assert [line.says for line in judge([gained(0, 40, 5000)], 0.01, 0.01, both_ways=True)] == ["better"]
    status, headline = _sum_up(judge([gained(0, 20), gained(30, 0)], 0.01, 0.01, both_ways=True), 0.01, 0.01, True)
    assert status == REGRESSION
    assert headline == ("Robustness fell: 1 of 2 comparisons regressed, the most n under a by 6.0 points; 1 rose.")


def weaker(data: dict[str, Any]) -> None:
    """The baseline fell on images on which the network stands now."""
    for cell in data["cells"]:
        outcome = Outcome.unpack(base64.b64decode(cell["outcome"]))
        last = outcome.last.copy()
        last[:60] = False
        parts = (outcome.clean, last, outcome.best, outcome.margin_clean, outcome.margin_last, outcome.flags)
        cell["outcome"] = base64.b64encode(Outcome(*parts).pack()).decode()


def test_an_attack_that_became_weaker_is_seen_both_ways_only(full: Store) -> None:
    old = baseline(full, rose=weaker)
    assert run_check(full, old).status == OK
    check = run_check(full, old, both_ways=True)
    assert check.status == REGRESSION
    assert check.headline.startswith("Robustness rose without new weights")
    assert "## Robustness: change" in check_markdown(check)
    assert "two-sided" in check_text(check)
    assert "RISE" in check_text(check)
    assert "<failure" in junit_xml(check).decode()
    assert run_check(full, baseline(full), both_ways=True).headline.startswith("No change: ")


def shifted(share: float, by: float) -> Any:
    """The margins of the vanilla networks under attack were others on a share of the images."""

    def change(data: dict[str, Any]) -> None:
        for cell in data["cells"]:
            if cell["labels"]["defense"] == "vanilla" and cell["labels"]["attack"] == "pgd3":
                outcome = Outcome.unpack(base64.b64decode(cell["outcome"]))
                margins = outcome.margin_last.copy()
                margins[: round(share * outcome.n)] += by
                parts = (outcome.clean, outcome.last, outcome.best, outcome.margin_clean, margins, outcome.flags)
                cell["outcome"] = base64.b64encode(Outcome(*parts).pack()).decode()

    return change


def test_margins_may_move_on_so_many_images_and_no_more(full: Store) -> None:
    assert run_check(full, baseline(full, m=shifted(0.2, 0.01))).status == OK
    assert run_check(full, baseline(full, m=shifted(0.1, 0.01)), max_moved=0.1).status == OK
    assert run_check(full, baseline(full, m=shifted(1, 1e-5)), max_moved=0).status == OK
    for by in (0.01, np.nan):
        check = run_check(full, baseline(full, m=shifted(0.2, by)), max_moved=0.1)
        assert check.status == REGRESSION
        assert {(line.attack, line.moved) for line in check.lines if line.says == "moved"} == {("pgd3 linf 0.2", 0.2)}
        assert "moved in 2 of 18 comparisons" in check.headline
        assert "on 20.0% of the images" in check.headline
        assert "20.0% of the margins moved" in junit_xml(check).decode()
        assert "| moved |" in check_markdown(check)


def test_new_weights_are_not_asked_to_change_nothing(full: Store) -> None:
    from bench.errors import BenchError

    for asked in ({"both_ways": True}, {"max_moved": 0.1}):
        with pytest.raises(BenchError, match="fixed weights"):
            run_check(full, baseline(full), new_weights=True, **asked)  # type: ignore[arg-type]


def test_a_small_loss_is_none_however_certain(full: Store) -> None:
    before, now = np.ones(10_000), np.ones(10_000)
    now[:90] = 0
    pairs = [Pair("n", "a", "", before, now, (1, 1))]
    assert judge(pairs, 0.01, 0.01)[0].status == OK
    assert judge(pairs, 0.01, 0.005)[0].status == REGRESSION


def test_the_family_is_corrected_for() -> None:
    before, now = np.ones(1000), np.ones(1000)
    now[:20], before[100:107] = 0, 0
    alone = judge([Pair("n", "a", "", before, now, (1, 1))], 0.01, 0.01)[0]
    quiet = [Pair("n", str(i), "", before, before, (1, 1)) for i in range(9)]
    among = judge([Pair("n", "a", "", before, now, (1, 1)), *quiet], 0.01, 0.01)[0]
    assert alone.status == REGRESSION
    assert among.p == pytest.approx(10 * (alone.p or 0))
    assert among.status == OK


def set_all(*path: str, value: Any) -> Any:
    def change(data: dict[str, Any]) -> None:
        for cell in data["cells"]:
            place = cell["spec"]
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = value
            rekeyed(cell)

    return change


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("test_hash",), "0" * 64, "test_hash 00000000 ->"),
        (("attack", "version"), 99, "attack version 99 -> "),
        (("attack_seed",), 5, "attack_seed 5 -> 0"),
        (("model", "T"), 8, "model T 8 -> 4"),
    ],
)
def test_another_protocol_is_not_comparable_and_named(
    full: Store, path: tuple[str, ...], value: Any, named: str
) -> None:
    check = run_check(full, baseline(full, other=set_all(*path, value=value)))
    assert check.status == NOT_COMPARABLE
    assert named in check.lines[-1].says


def other_weights(data: dict[str, Any]) -> None:
    for weights in data["weights"].values():
        weights["sha256"] = "cd" * 32


def test_other_weights_are_compared_only_on_demand(full: Store) -> None:
    old = baseline(full, other=other_weights)
    check = run_check(full, old)
    assert check.status == NOT_COMPARABLE
    assert "--new-weights" in check.headline
    assert run_check(full, old, new_weights=True).status == OK
    assert (
        run_check(full, baseline(full, other=other_weights, fell=stronger(0.2)), new_weights=True).status == REGRESSION
    )


def set_labels(name: str, value: Any, *path: str, spec: Any) -> Any:
    def change(data: dict[str, Any]) -> None:
        set_all(*path, value=spec)(data)
        for cell in data["cells"]:
            cell["labels"][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_labels("dataset", "others", "test_hash", spec="0" * 64), "other data: "),
        (set_labels("eps", "1/3", "attack", "eps", spec="1/3"), "other protocol: attack eps 1/3 -> "),
    ],
)
def test_data_or_budget_by_another_name_are_not_comparable(full: Store, change: Any, named: str) -> None:
    check = run_check(full, baseline(full, other=change))
    assert check.status == NOT_COMPARABLE
    assert named in check.headline


def only(defense: str, seed: int = 0, attack: str = "pgd3") -> Any:
    def change(data: dict[str, Any]) -> None:
        wanted = {"defense": defense, "seed": seed, "attack": attack}
        data["cells"] = [cell for cell in data["cells"] if wanted.items() <= cell["labels"].items()]

    return change


LATER = "2021-01-01T00:00:00+00:00"


def test_new_weights_are_never_mistaken_for_the_old_ones(full: Store, tmp_path: Path) -> None:
    """A store that is kept holds the old network, measured again, beside the new one that has fallen."""
    old = baseline(full, a=only("vanilla"), b=stronger(0.2))
    fallen = baseline(full, a=only("vanilla"), b=other_weights, c=lambda data: data["cells"][0].update(updated=LATER))
    kept = Store(tmp_path / "kept.sqlite")
    merge_bundle(kept, old, note={})
    # The baseline's own row, and the new network: the new one is meant.
    merge_bundle(kept, fallen, note={})
    assert run_check(kept, old, new_weights=True).status == REGRESSION
    # The old network measured again, and the new one: either could be meant.
    earlier = bundle_json(old)
    earlier["cells"][0]["updated"] = "2019-01-01T00:00:00+00:00"
    check = run_check(kept, bundle_of_json(earlier, "x"), new_weights=True)
    assert check.status == NOT_COMPARABLE
    assert "--results" in check.headline
    assert run_check(kept, bundle_of_json(earlier, "x")).status == OK


def test_strict_fails_what_became_suspect_and_says_that_nothing_fell() -> None:
    ones = np.ones(100)
    for suspect, status in ((True, REGRESSION), (False, OK)):
        pair = Pair("n", "a", "", ones, ones, (1, 1), "suspect", suspect)
        assert judge([pair], 0.01, 0.01)[0].status == OK
        lines = judge([pair], 0.01, 0.01, strict=True)
        assert lines[0].status == status
        if suspect:
            assert _sum_up(lines, 0.01, 0.01)[1].startswith("No fall, but n under a can be believed less")


def test_nothing_measured_is_never_a_pass(full: Store, tmp_path: Path) -> None:
    old = baseline(full)
    empty = Store(tmp_path / "empty.sqlite")
    assert run_check(empty, old).status == NOT_MEASURED
    assert run_check(full, Bundle((), {}, {})).status == NOT_MEASURED
    # Half of the cells have vanished.
    merge_bundle(empty, Bundle(old.cells[::2], old.weights, {}), note={})
    assert run_check(empty, old, allow_cached=True).status == NOT_MEASURED
    assert run_check(empty, Bundle(old.cells[::2], old.weights, {}), allow_cached=True).status == OK


def test_the_baseline_s_own_rows_are_no_new_measurement(full: Store) -> None:
    own = collect_bundle(full, full.cells())
    check = run_check(full, own)
    assert check.status == NOT_MEASURED
    assert "nothing was measured anew" in check.headline
    assert run_check(full, own, allow_cached=True).status == OK


def test_a_regression_counts_more_than_what_is_missing(full: Store) -> None:
    def lost(data: dict[str, Any]) -> None:
        set_all("attack_seed", value=9)({"cells": data["cells"][:1]})

    assert run_check(full, baseline(full, a=lost)).status == NOT_COMPARABLE
    assert run_check(full, baseline(full, a=lost, b=stronger(0.2))).status == REGRESSION


def hostile(check: Check) -> Check:
    from dataclasses import replace

    lines = tuple(replace(line, network="a|b<c>&\"'\x00\x1b_*", attack="]]>|", warning="<!--") for line in check.lines)
    return replace(check, lines=lines)


def test_reports_are_well_formed_whatever_the_names(full: Store) -> None:
    check = run_check(full, baseline(full, fell=stronger(0.2)))
    for each in (check, hostile(check), Check(NOT_MEASURED, "Nothing <was> measured", (), 0.01, 0.01, "last")):
        suite = ElementTree.fromstring(junit_xml(each))[0]
        cases = suite.findall("testcase")
        assert len(cases) == int(suite.get("tests", "")) >= 1
        assert len(suite.findall("*/failure")) == int(suite.get("failures", ""))
        assert len(suite.findall("*/error")) == int(suite.get("errors", ""))
        assert (int(suite.get("failures", "")) + int(suite.get("errors", "")) > 0) == (each.status != OK)
        markdown = check_markdown(each)
        assert markdown.startswith("## Robustness")
        rows = [line for line in markdown.splitlines() if line.startswith("|")]
        assert {line.replace("\\|", "").count("|") for line in rows} <= {8}
        assert each.headline in check_text(each)
        json.dumps(check_json(each))


def test_a_fall_of_exactly_the_smallest_effect_counts_at_every_rate() -> None:
    for standing in range(20, 1000, 7):
        before, now = (np.arange(1000) < count for count in (standing, standing - 10))
        pair = Pair("n", "a", "", before.astype(float), now.astype(float), (1, 1))
        assert judge([pair], 0.01, 0.01)[0].status == REGRESSION, standing


@pytest.mark.parametrize(("churn", "loss"), [(0.0, 0.2), (0.3, 0.0), (0.2, 0.15)])
def test_the_exact_power_is_that_of_the_check_by_enumeration(churn: float, loss: float) -> None:
    n, total = 24, 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            before = np.repeat([1.0, 0.0, 1.0], [lost, gained, n - lost - gained])
            now = np.repeat([0.0, 1.0, 1.0], [lost, gained, n - lost - gained])
            if judge([Pair("n", "a", "", before, now, (1, 1))], 0.05, 0.2)[0].status == REGRESSION:
                chances = [churn / 2 + loss, churn / 2, 1 - churn - loss]
                total += multinomial.pmf([lost, gained, n - lost - gained], n, chances)
    assert chance_of_failing(n, churn, loss, 0.05, 0.2) == pytest.approx(total, abs=1e-12)


def test_promised_power_and_size_are_exact() -> None:
    """1% churn: a loss of 3 points in one of up to 21 comparisons is caught at least 95% of the time."""
    assert largest_churn(21) == 0.01
    assert largest_churn(1) == 0.027
    assert 0.005 < largest_size() < 0.01


@pytest.mark.parametrize("cells", [1, 6, 20])
def test_size_and_power_of_whole_checks_by_simulation(cells: int) -> None:
    """Noise alone fails at most 1% of the checks, a loss of 3 points in all cells at least 95%."""
    for churn in (0.01, 0.02, 0.05):
        # Three standard errors of the simulation.
        assert simulated(cells, churn, 0.0, repeats=2000, seed=1).failed <= 0.01 + 3 * (0.01 * 0.99 / 2000) ** 0.5
    assert simulated(cells, 0.02, 0.03, repeats=1000, seed=1).failed >= 0.95


def test_simulated_checks_are_judged_as_real_ones() -> None:
    before, now = measurements(np.random.default_rng(3), 3, 0.05, 0.015, 40)
    expected = [
        any(line.status == REGRESSION for line in judge(
            [Pair("n", "a", "", b.astype(float), w.astype(float), (1, 1)) for b, w in zip(*check, strict=True)],
            0.01, 0.01,
        ))
        for check in zip(before, now, strict=True)
    ]  # fmt: skip
    assert verdicts(before, now).tolist() == expected
    assert 0 < sum(expected) < 40


def test_exit_codes_and_files_from_the_command_line(bench: Run, results: Path, full: Store, tmp_path: Path) -> None:
    saved = bench("baseline", "save", "own.json.gz", "-d", "at", "--eps", "0.2")
    assert saved.returncode == 0, saved.stderr
    assert "wrote 6 cells" in saved.stdout
    assert "pgd3" in bench("baseline", "show", "own.json.gz").stdout
    write_results(tmp_path / "same.json", baseline(full))
    write_results(tmp_path / "fell.json", baseline(full, fell=stronger(0.2)))
    (tmp_path / "broken.json").write_text("{")
    write_results(tmp_path / "other.json", baseline(full, other=set_all("test_hash", value="0" * 64)))
    for file, status in (
        ("same", OK), ("fell", REGRESSION), ("other", NOT_COMPARABLE), ("broken", NOT_MEASURED)
    ):  # fmt: skip
        done = bench("check", "--baseline", f"{file}.json", "--junit", f"{file}.xml", "--markdown", f"{file}.md")
        assert done.returncode == status, (file, done.stderr)
    assert (tmp_path / "fell.md").read_text().startswith("## Robustness: regression")
    assert b"<failure" in (tmp_path / "fell.xml").read_bytes()
    # Any file of results will do.
    write_results(tmp_path / "same.parquet", baseline(full))
    assert bench("check", "--baseline", "same.parquet").returncode == OK
    assert bench("check", "--baseline", "same.json", "--store", "absent.sqlite").returncode == NOT_MEASURED
    write_results(tmp_path / "rose.json", baseline(full, rose=weaker))
    assert bench("check", "--baseline", "rose.json", "--both-ways").returncode == REGRESSION
    assert bench("check", "--baseline", "same.json", "--both-ways", "--max-moved", "0").returncode == OK
    wrong = bench("check", "--baseline", "same.json", "--both-ways", "--new-weights")
    assert wrong.returncode == 2
    assert "--both-ways and --max-moved are for fixed weights" in " ".join(wrong.stderr.split())
    wrong = bench("check", "--baseline", "same.json", "--level", "7")
    assert wrong.returncode == 2
    assert "--level must lie between 0 and 1" in wrong.stderr
