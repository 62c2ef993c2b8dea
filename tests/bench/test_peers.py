"""Other libraries' attacks are run as they are, counted, and judged by our rule instead of their own."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from scipy import stats
from support import images, labels, spiking_net
from torch import Tensor
from typer.testing import CliRunner

from bench.cli.peers import peers
from bench.data import load_dataset
from bench.data.dataset import pixels
from bench.errors import BenchError
from bench.evaluation import evaluate
from bench.peers.adapter import Arena, Peer
from bench.peers.compare import Match, Row, paired
from bench.peers.contest import PEERS, parse_contest
from bench.peers.measure import Measured, Subject, made_legal, measure_ours, measure_theirs
from bench.report.peers import markdown, verdict
from bench.resolve import build_model, parse_attack, threat_of
from bench.spec import CellSpec, ModelSpec
from models.neurons import NeuronSpec
from models.random import derive_key

NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
N, STEPS = 8, 3
BY_NAME = {peer.name: peer for peer in PEERS}
MODEL = ModelSpec("cnn-small", 4, (1, 8, 8), 2, NeuronSpec(), (0.5,), (0.25,))


def cell(attack: str, eps: str = "8/255", n: int = N, draws: int = 1) -> CellSpec:
    return CellSpec("train:x", MODEL, "hash", n, parse_attack(attack, eps), draws, 0, "digits", "vanilla", 0)


def subject(neuron: NeuronSpec | None = None, draws: int = 1, y: Tensor | None = None) -> Subject:
    """The tiny network on images that it classifies as their labels, unless other labels are given."""
    model, x = spiking_net(neuron), images(N)
    with torch.no_grad():
        predicted = model(x).argmax(1)
    return Subject(model, x, predicted if y is None else y, 4, 5, draws)


def installed(name: str) -> Peer:
    peer = BY_NAME[name]
    if not peer.installed:
        pytest.skip(f"{peer.package} is not installed")
    return peer


ALL = [(peer.name, kind) for peer in PEERS for kind in peer.attacks]


@pytest.mark.parametrize(("name", "kind"), ALL, ids=[f"{name}-{kind}" for name, kind in ALL])
@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_candidates_are_legal_and_nothing_else_is_touched(name: str, kind: str, neuron: NeuronSpec) -> None:
    if kind == "autoattack" and neuron is NOISY:
        pytest.skip("AutoAttack is for deterministic networks")
    # All wrong but one, so that a whole ensemble ends early.
    given = subject(neuron, y=labels(N)) if kind != "autoattack" else subject()
    attack = installed(name).attacks[kind]
    eps = "0.5" if kind == "autoattack" else "8/255"
    seen: list[Tensor] = []

    def watched(arena: Arena) -> Tensor:
        seen.append(attack(arena))
        assert torch.equal(arena.x, given.x)
        return seen[-1]

    before = {key: value.clone() for key, value in given.model.state_dict().items()}
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    found = measure_theirs(given, cell(f"pgd{STEPS}", eps), watched, STEPS)
    assert found.error == ""
    assert found.forwards > 0
    assert found.backwards > 0
    assert torch.equal(generators[0], torch.get_rng_state())
    assert generators[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[union-attr]
    assert all(torch.equal(value, before[key]) for key, value in given.model.state_dict().items())
    (candidates,) = seen
    assert candidates.shape == given.x.shape
    # Within rounding, even before the projection.
    assert found.excess < 1e-6
    legal, outside, _ = made_legal(given.x, candidates, threat_of(cell("fgsm", eps).attack))
    assert outside == found.outside
    assert float((legal.double() - given.x.double()).abs().max()) <= (0.5 if eps == "0.5" else 8 / 255)
    assert float(legal.min()) >= 0
    assert float(legal.max()) <= 1


K = STEPS
COUNTS = {
    ("torchattacks", "pgd"): (K, K),
    ("foolbox", "pgd"): (K, K + 1),
    ("ART", "pgd"): (K, K + 2),
    ("torchattacks", "apgd"): (K + 1, K + 2),
    ("official", "apgd"): (K + 1, K + 2),
    ("ART", "apgd"): (K, 2 * K + 3),
    ("torchattacks", "mtpgd"): (3 * (K + 1), 3 * (K + 2) + 1),
    ("official", "mtpgd"): (3 * (K + 1), 3 * (K + 2) + 1),
}
"""(backwards, forwards) of an image that stands to the end; ART's classifier may try itself on one image more."""


@pytest.mark.parametrize(("name", "kind"), COUNTS, ids=[f"{name}-{kind}" for name, kind in COUNTS])
def test_passes_are_counted(name: str, kind: str) -> None:
    # So small a budget that every image stands, whatever the library does.
    found = measure_theirs(subject(), cell(f"pgd{K}", "1/100000000"), installed(name).attacks[kind], K)
    backwards, forwards = COUNTS[name, kind]
    assert found.backwards == backwards
    assert forwards <= found.forwards <= forwards + 2 / N


def test_our_passes_are_counted() -> None:
    found = measure_ours(subject(), cell("pgd7"))
    assert (found.forwards, found.backwards, found.outside) == (7, 7, 0)
    found = measure_ours(subject(), cell("apgd7"))
    assert (found.forwards, found.backwards, found.outside) == (8, 8, 0)


def test_ours_is_what_the_harness_measures() -> None:
    data = load_dataset("digits", Path())
    spec = ModelSpec("cnn-small", 10, data.in_shape, 2, NOISY, data.mean, data.std)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(spec).eval()
    asked = CellSpec("train:x", spec, data.test_hash, 140, parse_attack("pgd2", "0.1"), 3, 0, "digits", "nlif", 0)
    outcomes = [result.outcomes[asked] for result in evaluate(model, data, [asked], device=torch.device("cpu"))]
    score_key = derive_key(asked.weights, asked.test_hash, "scoring noise")
    x = pixels(data.x_test[: asked.n], torch.device("cpu"))
    found = measure_ours(Subject(model, x, data.y_test[: asked.n], 10, score_key, 3), asked)
    assert np.array_equal(found.robust, np.concatenate([outcome.robust_last for outcome in outcomes]))


def far_outside(arena: Arena) -> Tensor:
    return arena.x + 3 * arena.eps


def claims_to_have_won(arena: Arena) -> Tensor:
    return arena.x.clone()


def not_numbers(arena: Arena) -> Tensor:
    return torch.full_like(arena.x, float("nan"))


def a_lucky_draw(arena: Arena) -> Tensor:
    """Keeps whatever fooled the network once, as code for deterministic networks does."""
    fooled = torch.zeros(len(arena.x), dtype=torch.bool)
    for _ in range(20):
        fooled |= arena.model(arena.x).argmax(1) != arena.y
    assert bool(fooled.any())
    return arena.x.clone()


def test_candidates_outside_are_counted_and_projected() -> None:
    found = measure_theirs(subject(), cell("pgd3"), far_outside, 3)
    assert found.outside == N
    # Some pixels are 1: there the box is left by all of it.
    assert found.excess == pytest.approx(3 * 8 / 255, rel=1e-5)
    x = subject().x
    legal, _, _ = made_legal(x, x + 3 * 8 / 255, threat_of(cell("pgd3").attack))
    assert float((legal.double() - x.double()).abs().max()) <= 8 / 255


def test_success_that_is_bought_with_the_ball_is_undone_and_said() -> None:
    def black(arena: Arena) -> Tensor:
        return torch.zeros_like(arena.x)

    given = subject()
    found = measure_theirs(given, cell("pgd3", "1/100000000"), black, 3)
    with torch.no_grad():
        fooled = int((given.model(torch.zeros_like(given.x)).argmax(1) != given.y).sum())
    assert fooled > 0
    assert (found.outside, found.undone, found.robust.mean()) == (N, fooled, 1.0)


@pytest.mark.parametrize("peer", [claims_to_have_won, not_numbers, a_lucky_draw])
def test_a_success_that_is_none_is_not_counted(peer: Callable[[Arena], Tensor]) -> None:
    given = subject(NOISY, draws=5, y=labels(N))
    found = measure_theirs(given, cell("pgd3", draws=5), peer, 3)
    assert found.error == ""
    assert np.array_equal(found.robust, found.clean)
    assert 0 < found.clean.mean() < 1
    assert found.outside == (N if peer is not_numbers else 0)


def raises(arena: Arena) -> Tensor:
    raise RuntimeError("no such image")


def half_of_them(arena: Arena) -> Tensor:
    return arena.x[::2]


@pytest.mark.parametrize(("peer", "reason"), [(raises, "no such image"), (half_of_them, "not images")])
def test_a_peer_that_fails_is_a_row_with_the_reason(peer: Callable[[Arena], Tensor], reason: str) -> None:
    found = measure_theirs(subject(), cell("pgd3"), peer, 3)
    assert reason in found.error


def test_what_a_peer_does_to_the_network_does_not_reach_it() -> None:
    def trains(arena: Arena) -> Tensor:
        assert list(arena.model.parameters()) == []
        arena.model.train().double()
        return arena.x.clone()

    given = subject()
    assert measure_theirs(given, cell("pgd3"), trains, 3).error == ""
    assert not given.model.training
    assert next(given.model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(("fewer", "more"), [(0, 0), (4, 0), (0, 4), (7, 3), (12, 12)])
def test_the_p_value_is_the_exact_binomial_one(fewer: int, more: int) -> None:
    ours = np.array([1.0] * fewer + [0.0] * more + [1.0] * 5)
    theirs = np.array([0.0] * fewer + [1.0] * more + [1.0] * 5)
    expected = stats.binomtest(fewer, fewer + more).pvalue if fewer + more else 1.0
    assert paired(ours, theirs) == (fewer, more, pytest.approx(expected))


@pytest.mark.parametrize("text", ["pgd", "pgd0", "fgsm", "autoattack5", "sapgd10"])
def test_what_is_not_compared_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="is not compared with anything"):
        parse_contest(text)


def made_up(*robust: tuple[str, int]) -> Match:
    rows: list[Row] = []
    for by, standing in robust:
        values = np.array([1.0] * standing + [0.0] * (10 - standing))
        found = Measured(np.ones(10), values)
        rows.append(Row(by, "pgd5", found, *(paired(rows[0].measured.robust, values) if rows else ())))
    return Match("vanilla", parse_contest("pgd5"), cell("pgd5"), 10, tuple(rows))


def test_the_verdict_says_who_is_lower() -> None:
    assert verdict(made_up(("ours", 3), ("ART", 4), ("foolbox", 3))) == "pgd5 is the lowest, with foolbox."
    text = verdict(made_up(("ours", 5), ("ART", 6), ("foolbox", 3)))
    assert "not the lowest: foolbox is lower by 20.0 points (2 images fall only there, 0 only here, p 0.5)" in text
    assert "ART" not in text
    assert "no higher than any of them" in verdict(made_up(("ours", 5), ("ours", 2), ("ART", 4)))


def test_markdown_has_a_line_for_each_row() -> None:
    lines = markdown([made_up(("ours", 3), ("ART", 4))], ["x: not installed; pip install x"], {"ART": "art 1"})
    assert sum(line.startswith("| vanilla") for line in lines) == 2
    assert "- x: not installed; pip install x" in lines


def test_the_command_compares_and_a_missing_library_is_a_line(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.peers.compare.PEERS", (BY_NAME["torchattacks"], absent := missing()))
    app = typer.Typer()
    app.command()(peers)
    arguments = ["--dataset", tiny_npz, "--model", "cnn-small", "--epochs", 1, "--train-size", 96, "-n", 16]
    arguments += ["-a", "pgd2,apgd2", "--eps", "0.1", "--device", "cpu", "--results", tmp_path, "--json"]
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert ran.exit_code == 0, ran.output
    shown: Any = json.loads(ran.stdout[ran.stdout.index("{\n") :])
    assert shown["missing"] == [f"absent: not installed; pip install {absent.package}"]
    rows = [(row["by"], row["attack"], row["backwards"]) for match in shown["matches"] for row in match["rows"]]
    expected = [("ours", "pgd2:random_start=false", 2.0), ("ours", "apgd2", 3.0), ("ours", "sapgd2@assg", 3.0)]
    assert [row for row in rows if row[0] == "ours"] == expected
    if BY_NAME["torchattacks"].installed:
        assert ("torchattacks", "pgd2", 2.0) in rows
    assert all(row["robust"]["n"] == 16 for match in shown["matches"] for row in match["rows"])


def missing() -> Peer:
    return Peer("absent", "no-such-package", ("no_such_module",), {"pgd": claims_to_have_won})
