"""The gate: what it catches, what it lets pass, what it refuses to compare."""

import base64
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from support import Run

from bench.exchange.bundle import Bundle, bundle_json, bundle_of_json, collect_bundle
from bench.exchange.files import write_results
from bench.exchange.merge import merge_bundle
from bench.gate.check import NOT_COMPARABLE, NOT_MEASURED, OK, REGRESSION, Check, Pair, judge, run_check
from bench.gate.junit import junit_xml
from bench.gate.report import check_json, check_markdown, check_text
from bench.gate.simulate import simulated
from bench.outcome import Outcome
from bench.spec import canonical_json
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


@pytest.mark.parametrize("cells", [1, 6, 20])
def test_size_and_power_by_simulation(cells: int) -> None:
    """Noise alone fails at most 1% of the checks, a loss of 3 points on 1,000 images at least 95%."""
    for churn in (0.0, 0.02):
        noise = simulated(cells, churn, 0.0, repeats=150)
        # Two of 150 may fail by chance where the true share is 1%.
        assert noise.failed <= 2 / 150
        assert simulated(cells, churn, 0.03, repeats=100).failed >= 0.95


def test_exit_codes_and_files_from_the_command_line(bench: Run, results: Path, full: Store, tmp_path: Path) -> None:
    saved = bench("baseline", "save", "own.json.gz", "-d", "at", "--eps", "0.2")
    assert saved.returncode == 0, saved.stderr
    assert "wrote 6 cells" in saved.stdout
    assert "pgd3" in bench("baseline", "show", "own.json.gz").stdout
    write_results(tmp_path / "same.json", baseline(full))
    write_results(tmp_path / "fell.json", baseline(full, fell=stronger(0.2)))
    (tmp_path / "broken.json").write_text("{")
    for file, status in (("same", OK), ("fell", REGRESSION), ("broken", NOT_MEASURED)):
        done = bench("check", "--baseline", f"{file}.json", "--junit", f"{file}.xml", "--markdown", f"{file}.md")
        assert done.returncode == status, (file, done.stderr)
    assert (tmp_path / "fell.md").read_text().startswith("## Robustness: regression")
    assert b"<failure" in (tmp_path / "fell.xml").read_bytes()
    assert bench("check", "--baseline", "same.json", "--store", "absent.sqlite").returncode == NOT_MEASURED
    wrong = bench("check", "--baseline", "same.json", "--level", "7")
    assert wrong.returncode == 2
    assert "--level must lie between 0 and 1" in wrong.stderr
