"""The verdict on a cell, and which audit speaks about it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bench.audit.cell import judge_cell, majority_hits
from bench.audit.finding import Finding, limited, verdict_of
from bench.audit.join import AuditRow, concerns, joined, relevant
from bench.audit.paired import broken_more
from bench.outcome import Flag, Outcome
from bench.statistics import mcnemar

N = 200


def outcome(accuracy: float = 0.9, flagged: int = 0, flag: int = 0, safer: int = 0, draws: int = 1) -> Outcome:
    """N images, the first right; the first `flagged` carry `flag`; `safer` of the right ones gain margin."""
    clean = np.zeros((N, draws), bool)
    clean[: round(N * accuracy)] = True
    last = clean & (np.arange(N) % 2 == 0)[:, None]
    flags = np.zeros(N, np.uint8)
    flags[:flagged] = flag
    margin = np.ones(N, np.float32)
    after = margin - 1
    after[:safer] = 2
    return Outcome(clean, last, last, margin, after, flags)


def alarms(cell: Outcome, gradients: bool = True, classes: int = 10) -> dict[str, str]:
    judged = judge_cell(cell, classes, gradients=gradients)
    assert judged.verdict == verdict_of(judged.findings)
    return {finding.check: finding.verdict for finding in judged.findings if finding.verdict != "ok"}


def test_a_sound_cell_is_ok_and_keeps_every_finding() -> None:
    judged = judge_cell(outcome(), 10, gradients=True)
    assert judged.verdict == "ok"
    assert {f.check for f in judged.findings} == {
        "nan", "ball", "placebo", "ties", "chance", "zero gradient", "backfire",
    }  # fmt: skip


@pytest.mark.parametrize(("flag", "check"), [(Flag.NAN, "nan"), (Flag.OUTSIDE, "ball"), (Flag.PLACEBO, "placebo")])
def test_one_broken_image_makes_a_cell_invalid(flag: Flag, check: str) -> None:
    assert alarms(outcome(flagged=1, flag=flag)) == {check: "invalid"}


@pytest.mark.parametrize(("flag", "check"), [(Flag.TIE, "ties"), (Flag.ZERO_GRADIENT, "zero gradient")])
def test_more_than_one_image_in_twenty_makes_a_cell_suspect(flag: Flag, check: str) -> None:
    assert alarms(outcome(flagged=N // 20, flag=flag)) == {}
    assert alarms(outcome(flagged=N // 20 + 1, flag=flag)) == {check: "suspect"}


def test_zero_gradients_and_backfire_are_for_attacks_with_gradients() -> None:
    cell = outcome(flagged=N, flag=Flag.ZERO_GRADIENT, safer=N)
    assert alarms(cell, gradients=False) == {}
    assert alarms(cell) == {"zero gradient": "suspect", "backfire": "suspect"}


@pytest.mark.parametrize(("accuracy", "classes", "suspect"), [(0.12, 10, True), (0.2, 10, False), (0.55, 2, True)])
def test_accuracy_that_may_be_chance_is_suspect(accuracy: float, classes: int, suspect: bool) -> None:
    assert ("chance" in alarms(outcome(accuracy), classes=classes)) == suspect


def test_a_worse_verdict_wins() -> None:
    cell = outcome(0.1, flagged=1, flag=Flag.NAN)
    assert judge_cell(cell, 10, gradients=True).verdict == "invalid"


def test_a_cell_without_one_right_image_is_judged() -> None:
    assert alarms(outcome(0.0)) == {"chance": "suspect"}


def test_the_majority_decides_by_more_than_half_of_the_draws() -> None:
    clean = np.ones((4, 4), bool)
    last = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    zero = np.zeros(4, np.float32)
    assert majority_hits(Outcome(clean, last, clean, zero, zero, np.zeros(4, np.uint8))) == 2


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_scipy(only_first: int, only_second: int) -> None:
    n = only_first + only_second
    expected = binomtest(only_first, n, alternative="greater").pvalue if n else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected)


def test_a_difference_must_be_large_and_significant() -> None:
    def verdict(n: int, only_first: int, only_second: int, limit: float) -> str:
        first, second = np.ones(n, bool), np.ones(n, bool)
        first[:only_first] = False
        second[only_first : only_first + only_second] = False
        return broken_more("x", first, second, limit, "fine", "wrong").verdict

    assert verdict(100, 10, 0, 0.05) == "suspect"
    assert verdict(100, 10, 0, 0.10) == "ok"
    assert verdict(100, 6, 0, 0.05) == "ok" if mcnemar(6, 0) >= 0.01 else "suspect"
    assert verdict(100, 16, 9, 0.05) == "ok"
    assert verdict(100, 0, 50, 0.05) == "ok"


def test_a_value_that_is_not_a_number_is_an_alarm() -> None:
    assert limited("x", float("nan"), 0.5, "fine", "wrong").verdict == "suspect"
    with pytest.raises(ValueError, match="unknown verdict"):
        Finding("x", "fine", 0.0, 0.0, "")


def audit(*findings: Finding, eps: str = "1/10", n: int = 128, version: int = 1, age: int = 0) -> AuditRow:
    created = datetime.now(UTC) - timedelta(days=age)
    return AuditRow("k", eps, n, version, verdict_of(findings), findings, 1.0, created)


def test_the_audit_that_speaks_is_of_the_newest_checks_then_the_budget_then_the_most_images() -> None:
    assert relevant([], "1/10") is None
    other, own, larger = audit(eps="1/5", n=512), audit(n=64), audit(n=128, age=3)
    assert relevant([other], "1/10") is other
    assert relevant([other, own], "1/10") is own
    assert relevant([other, own, larger], "1/10") is larger
    newer = audit(eps="1/5", version=2)
    assert relevant([other, own, larger, newer], "1/10") is newer


def test_a_cell_whose_attack_heeds_a_finding_is_not_doubted_for_it() -> None:
    spread = Finding("surrogate spread", "suspect", 0.3, 0.15, "others break more")
    spec = {"attack": {"family": "pgd", "surrogate": None, "steps": 20, "params": [["loss", "ce"]]}}
    verdict, findings = joined("ok", (), audit(spread), spec)
    assert (verdict, findings) == ("suspect", (spread,))
    heeding = {"attack": spec["attack"] | {"family": "sweep"}}
    assert joined("ok", (), audit(spread), heeding) == ("ok", ())
    assert joined("invalid", None, audit(spread), heeding) == ("invalid", ())
    attack = spec["attack"]
    for check, heeded in {
        "eot": {"eot": 8},
        "steps": {"steps": 40},
        "saturated ce": {"params": [["loss", "margin"]]},
        "surrogate spread": {"family": "snn-standard"},
    }.items():
        finding = Finding(check, "suspect", 1.0, 0.0, "")
        assert concerns(finding, attack)
        assert not concerns(finding, attack | heeded)
    assert concerns(Finding("black box", "suspect", 1.0, 0.0, ""), heeding["attack"])
