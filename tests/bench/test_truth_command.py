"""`bench truth` as its users meet it: numbers, cache, formats, and a bug that must not go unnoticed."""

import csv
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from truth_networks import random_images, random_network

import bench.truth.cache
from bench.cli.truth import truth
from bench.data.digits4 import load
from bench.errors import BenchError
from bench.outcome import Flag, Outcome
from bench.registry import MODELS, Entry
from bench.report.truth import problems, render
from bench.spec import ModelSpec
from bench.truth.cache import TruthSpec, find_truth
from bench.truth.compare import Attacked, Comparison, judge
from bench.truth.exact import BROKEN, ROBUST, UNKNOWN, Verdict
from models.neurons import NeuronSpec


@pytest.fixture(autouse=True)
def tiny_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    if "tiny" not in MODELS:
        monkeypatch.setitem(MODELS._entries, "tiny", Entry("tiny", "models.tiny:tiny", True))


@pytest.fixture
def arguments(tiny_npz: Path, tmp_path: Path) -> dict[str, Any]:
    return {"dataset": str(tiny_npz), "eps": ["0.02,0.1"], "count": 12, "epochs": 2, "results": tmp_path}


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> tuple[str, str]:
    truth(**arguments)
    return tuple(capsys.readouterr())  # type: ignore[return-value]


def test_it_trains_enumerates_attacks_and_answers_again_from_disk(
    arguments: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments |= {"defenses": ["vanilla", "nlif"], "attacks": ["fgsm,pgd5,pgd5:restarts=2"], "as_json": True}
    rows = json.loads(run(capsys, **arguments)[0])
    assert [(row["defense"], row["eps"], row["noise_off"]) for row in rows] == [
        ("vanilla", "0.02", False), ("vanilla", "0.1", False), ("nlif", "0.02", True), ("nlif", "0.1", True),
    ]  # fmt: skip
    for row in rows:
        assert 0 <= row["robust_lower"] <= row["robust_upper"] <= row["clean"] <= row["n"] == 12
        assert [attack["attack"] for attack in row["attacks"]] == ["fgsm", "pgd5", "pgd5:restarts=2"]
        for attack in row["attacks"]:
            assert row["robust_lower"] <= attack["any"] <= attack["last"] <= row["clean"]
    monkeypatch.setattr(bench.truth.cache, "verdicts", None)
    monkeypatch.setattr("bench.truth.attacked.evaluate", None)
    assert json.loads(run(capsys, **arguments)[0]) == rows


def test_more_images_continue_what_is_on_disk(
    arguments: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments |= {"attacks": ["fgsm"], "eps": ["0.05"], "as_json": True}
    run(capsys, **arguments)
    asked = []
    real = bench.truth.cache.verdicts

    def counted(model: Any, x: torch.Tensor, *rest: Any) -> Any:
        asked.append(len(x))
        return real(model, x, *rest)

    monkeypatch.setattr(bench.truth.cache, "verdicts", counted)
    (row,) = json.loads(run(capsys, **arguments | {"count": 20})[0])
    assert asked == [8]
    assert row["n"] == 20


def test_formats(arguments: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments |= {"attacks": ["fgsm", "pgd5"]}
    text, _ = run(capsys, **arguments)
    assert "exact enumeration" in text
    assert "truth" in text
    lines = list(csv.DictReader(io.StringIO(run(capsys, **arguments, form="csv")[0])))
    assert [(line["eps"], line["attack"]) for line in lines] == [
        ("0.02", "fgsm"), ("0.02", "pgd5"), ("0.1", "fgsm"), ("0.1", "pgd5"),
    ]  # fmt: skip
    run(capsys, **arguments, form="md", output=tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text().count("\n| vanilla |") == 2


def test_mistakes_are_one_line(arguments: dict[str, Any], tmp_path: Path) -> None:
    for change, message in (
        ({"model": "cnn-small"}, "--model tiny"),
        ({"attacks": ["pgdx"]}, "unknown attack"),
        ({"form": "pdf"}, "unknown format"),
        ({"nodes": 0}, "positive"),
    ):
        with pytest.raises(BenchError, match=message):
            truth(**arguments | {"count": 4} | change)


def test_an_interrupted_search_keeps_what_it_found(tmp_path: Path) -> None:
    model, x = random_network(0, (4, 4), 3), random_images(0, 10, 3)
    y = torch.zeros(10, dtype=torch.int64)
    spec = TruthSpec(
        "abc", ModelSpec("tiny", 3, (1, 1, 3), 4, NeuronSpec(), (0.4,), (0.3,)), "test", Fraction(1, 10), 0.0, 1.0,
        1000, 1000, None,
    )  # fmt: skip
    known = []

    def interrupt(count: int, verdict: Verdict | None) -> None:
        known.append(verdict)
        if len(known) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_truth(tmp_path, spec, model, x, y, interrupt)
    counts = []
    resumed = find_truth(tmp_path, spec, model, x, y, lambda count, _: counts.append(count))
    fresh = find_truth(tmp_path / "other", spec, model, x, y)
    assert counts == [4, 1, 1, 1, 1, 1, 1]
    assert [v.status for v in resumed.verdicts] == [v.status for v in fresh.verdicts]
    (file,) = tmp_path.glob("*.json")
    file.write_text(file.read_text()[:-20])
    with pytest.raises(BenchError, match="damaged"):
        find_truth(tmp_path, spec, model, x, y)


def outcome(last: list[bool], flags: int = 0) -> Outcome:
    survived, zeros = np.array(last)[:, None], np.zeros(len(last), np.float32)
    clean = np.ones_like(survived)
    return Outcome(clean, survived, survived, zeros, zeros, np.full(len(last), flags, np.uint8))


def comparison(attack: Attacked, robust: int = 1, broken: int = 1) -> Comparison:
    return Comparison("at", 0, "tiny", "digits4", Fraction(1, 10), 4, 4, robust, broken, False, 0.1, (attack,))


def test_an_attack_below_the_truth_is_a_bug_and_said_so() -> None:
    verdicts = [Verdict(status, None, 0, 0) for status in (ROBUST, BROKEN, UNKNOWN, ROBUST)]
    assert judge("a", "k", outcome([True, True, False, True]), verdicts).contradictions == ()
    wrong = judge("a", "k", outcome([True, False, False, False]), verdicts)
    assert wrong.contradictions == (3,)
    (line,) = problems([comparison(wrong)])
    assert line.startswith("CONTRADICTION: a broke images of at at eps 0.1 that enumeration proved robust (number 3)")
    assert "CONTRADICTION" in render([comparison(wrong)], "md").splitlines()[-1]


def test_a_proposal_outside_the_ball_contradicts_nothing() -> None:
    verdicts = [Verdict(ROBUST, None, 0, 0)] * 4
    left = judge("a", "k", outcome([False] * 4, int(Flag.OUTSIDE)), verdicts)
    assert (left.contradictions, left.invalid) == ((), 4)
    assert "left the ball" in problems([comparison(left)])[0]


def test_unknown_images_make_truth_and_gap_a_range() -> None:
    line = render([comparison(Attacked("a", "k", last=3, any=2))], "md").splitlines()[-1]
    assert line == "| at | 0.1 | 100.0 | 25.0 to 75.0 | 75.0 (+0.0 to +50.0) |"
    line = render([comparison(Attacked("a", "k", last=3, any=2))], "md", "any").splitlines()[-1]
    assert line.endswith("| 50.0 (-25.0 to +25.0) |")


def test_a_contradiction_fails_the_command(
    arguments: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments |= {"attacks": ["fgsm"], "eps": ["1"]}
    everything = iter(lambda: Verdict(ROBUST, None, 0, 0), None)
    monkeypatch.setattr(bench.truth.cache, "verdicts", lambda model, x, *rest: (next(everything) for _ in x))
    with pytest.raises((typer.Exit, BenchError)):
        truth(**arguments)


def test_the_small_digits_are_averages_of_the_digits() -> None:
    from bench.data.digits import load as load_full

    small, full = load(Path()), load_full(Path())
    assert small.in_shape == (1, 4, 4)
    assert len(small.x_test) == 500
    blocks = full.x_test.view(-1, 4, 2, 4, 2).double().mean((2, 4))
    assert torch.equal(small.x_test[:, 0].double(), blocks)
    assert torch.equal(small.y_train, full.y_train)
    assert abs(float(small.x_train.mean()) - small.mean[0]) < 1e-3
    assert abs(float(small.x_train.std()) - small.std[0]) < 1e-3
