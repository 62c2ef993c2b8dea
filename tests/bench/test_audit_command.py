"""`bench audit` as a user meets it."""

import json
import os
from pathlib import Path

import pytest
from support import Run

from bench.audit.checks import CHECKS
from bench.audit.fixtures import FIXTURES


def test_an_audit_is_printed_stored_and_shown_beside_the_cells(bench: Run, tiny_run: list[str]) -> None:
    network = [*tiny_run[1:], "-d", "vanilla", "--eps", "0.1"]
    first = bench("audit", *network, "-n", "16", "--json")
    assert first.stderr.count("auditing vanilla (seed 0) at eps 0.1, 16 images") == 1
    (audit,) = json.loads(first.stdout)["audits"]
    assert [finding["check"] for finding in audit["findings"]] == list(CHECKS)
    assert audit["n"] == 16 and not audit["stored"]
    assert first.returncode == (audit["verdict"] == "invalid")
    second = bench("audit", *network, "-n", "16", "--json")
    assert "auditing" not in second.stderr
    (again,) = json.loads(second.stdout)["audits"]
    assert again["stored"]
    assert again | {"stored": False} == audit

    printed = bench("audit", *network, "-n", "16")
    assert "from the store" in printed.stdout
    for check in CHECKS:
        assert check in printed.stdout
    (cell,) = json.loads(bench("run", *network, "-a", "fgsm", "-n", "16", "--json").stdout)["cells"]
    assert cell["audit"] == audit["verdict"]
    shown = bench("show", cell["key"][:12]).stdout
    assert f"{len(CHECKS)} checks on 16 images" in shown
    assert "equals clean accuracy on all 16 images" in shown


def test_a_narrow_window_holds_the_table(bench: Run, tiny_run: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "FORCE_COLOR", "1")
    result = bench("audit", *tiny_run[1:], "-n", "8")
    plain = [line for line in result.stdout.splitlines() if "finite" in line or "spikes" in line]
    assert plain
    assert "…" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibrate", "0"], "at least one seed"),
        (["--calibrate", "1", "-n", "501"], "must lie in [1, 500]"),
        (["-d", "tgoo"], "did you mean 'tgo'"),
        (["-a", "pgd40"], "No such option"),
    ],
)
def test_mistakes_are_one_line(bench: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    result = bench("audit", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_of_one_seed_names_every_fixture(bench: Run) -> None:
    result = bench("audit", "--calibrate", "1", "-n", "8", "--json")
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout)
    assert [fixture["name"] for fixture in made["fixtures"]] == [fixture.name for fixture in FIXTURES]
    assert made["seeds"] == [0]
