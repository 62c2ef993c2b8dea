"""`bench audit` as a user meets it."""

import json
import re
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import Run, make_cell

from bench.audit.calibrate import calibrate
from bench.audit.checks import CHECKS
from bench.audit.finding import Finding
from bench.audit.fixtures import FIXTURES
from bench.audit.join import AuditRow
from bench.audit.run import Audited, AuditReport
from bench.audit.spec import AuditSpec
from bench.data import load_dataset
from bench.report.audit import calibration_json, print_audits, print_calibration

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_an_audit_is_printed_stored_and_shown_beside_the_cells(bench: Run, tiny_run: list[str]) -> None:
    network = [*tiny_run[1:], "-d", "vanilla", "--eps", "0.1"]
    first = bench("audit", *network, "-n", "8", "--json")
    assert first.stderr.count("auditing vanilla (seed 0) at eps 0.1, 8 images") == 1
    (audit,) = json.loads(first.stdout)["audits"]
    assert [finding["check"] for finding in audit["findings"]] == list(CHECKS)
    assert audit["n"] == 8 and not audit["stored"]
    assert first.returncode == (audit["verdict"] == "invalid")
    second = bench("audit", *network, "-n", "8", "--json")
    assert "auditing" not in second.stderr
    (again,) = json.loads(second.stdout)["audits"]
    assert again["stored"]
    assert again | {"stored": False} == audit

    (cell,) = json.loads(bench("run", *network, "-a", "fgsm", "-n", "8", "--json").stdout)["cells"]
    assert cell["audit"] == audit["verdict"]
    shown = bench("show", cell["key"][:12]).stdout
    assert f"{len(CHECKS)} checks on 8 images" in shown
    assert "equals clean accuracy on all 8 images" in shown


def test_a_narrow_window_holds_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    long = Finding("surrogate spread", "suspect", 0.625, 0.15, "other gradients break many more images " * 4)
    row = AuditRow("k", "1/10", 128, 1, "suspect", (long, Finding("eot", "ok", None, 0.05, "fine")), 61.0, NOW)
    spec = AuditSpec("train:abc", make_cell().model, "hash", 128, "linf", Fraction(1, 10))
    job: Any = SimpleNamespace(spec=SimpleNamespace(defense_name="tgo+at", seed=0, model=spec.model, dataset="digits"))
    print_audits(AuditReport([Audited(job, spec, row, stored=False)]), "bench.sqlite")
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert re.search(r"surrogate spread +62\.5% +15\.0% +suspect", text)
    assert "suspect: surrogate spread" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibrate", "0"], "at least one seed"),
        (["--calibrate", "1", "-n", "501"], "must lie in [1, 500]"),
        (["-n", "7"], "at least 8 images"),
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


def test_a_calibration_says_who_caught_what(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chosen = [fixture for fixture in FIXTURES if fixture.name in ("no graph", "sound: vanilla")]
    heard: list[str] = []
    results = calibrate(load_dataset("digits", tmp_path), [3], 8, heard.append, chosen)
    assert heard == ["seed 3, no graph", "seed 3, sound: vanilla"]
    made = calibration_json(results, [3], 8)
    assert [(f["name"], f["sound"]) for f in made["fixtures"]] == [("no graph", False), ("sound: vanilla", True)]
    assert made["fixtures"][0]["met"]["hits"] == 1
    assert made["false_alarms"]["n"] == len(CHECKS)
    assert json.loads(json.dumps(made)) == made
    print_calibration(results, [3], 8)
    text = capsys.readouterr().out
    assert re.search(r"no graph +1 / 1 +100\.0", text)
    # Which checks alarm besides, and so where a line ends, is a matter of rounding.
    assert "*zero gradient 1" in " ".join(text.split())
    assert f"of {len(CHECKS)} checks of sound networks" in text
