"""The ensemble for noisy networks: luck is not success, and what does depend on the input is found."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign import inside, predicted, smooth_net
from support import images, labels, spiking_net
from test_purity import assert_same, state_of
from torch import Tensor, nn

from attacks import Threat
from attacks.autorand import AUTORAND, STEPS, autorand
from attacks.gradients import estimating
from attacks.pgd import pgd
from bench.data import load_dataset
from bench.evaluation import evaluate
from bench.outcome import Outcome
from bench.resolve import parse_attack
from bench.spec import CellSpec, ModelSpec
from models.neurons import NeuronSpec
from models.random import CounterRNG, active_noise_stream, noise_stream

# Not on every machine that has a GPU to test.
pyautoattack = pytest.importorskip("pyautoattack")
RNG = Callable[..., CounterRNG]
NOTHING = Threat(Fraction(1, 10**9))
QUANTILE = -1.2815515655446004
N, SCORING_DRAWS = 1000, 5
THREE_SIGMA = 3 * (0.9 * 0.1 / (N * SCORING_DRAWS)) ** 0.5


class ErrsAtRandom(nn.Module):
    """Reads the class off one pixel, and names the next class instead on 10% of its draws, whatever the input."""

    stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        logits = -((4 * x[:, 0, :1, 0] - torch.arange(4)) ** 2)
        stream = active_noise_stream()
        noise = torch.randn(len(x), 1) if stream is None else stream.normal(logits[None, :, :1], 0)[0]
        return torch.where(noise < QUANTILE, logits.roll(1, 1), logits)


def readable(n: int) -> tuple[Tensor, Tensor]:
    """Images that `ErrsAtRandom` reads rightly on 90% of its draws, and their classes."""
    x, y = images(n), labels(n)
    x[:, 0, 0, 0] = y / 4 + 0.05
    return x, y


def expected_accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """As the harness scores: the mean over draws that no attack has seen."""
    with torch.no_grad(), noise_stream(model, 999, torch.arange(len(x))):
        return float(np.mean([(model(x).argmax(1) == y).double().mean() for _ in range(SCORING_DRAWS)]))


def test_official_rand_counts_luck_as_success() -> None:
    model, (x, y) = ErrsAtRandom(), readable(N)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        official = pyautoattack.AutoAttack(model, eps=float(NOTHING.eps), seed=0, version="rand")
        # Each stage draws anew, however many steps it has.
        official.apgd.n_iter = 5
        _, named = official.run_standard_evaluation(x, y, batch_size=N)
    assert 0.69 < (named == y).double().mean() < 0.77


def test_a_network_that_errs_at_random_keeps_its_accuracy_here(rng: RNG) -> None:
    model, (x, y) = ErrsAtRandom(), readable(N)
    with noise_stream(model, 1, torch.arange(N)), estimating(model, None, 4):
        x_adv = autorand(model, x, y, NOTHING, rng=rng(N), steps=5)
    assert inside(x, x_adv, NOTHING)
    assert expected_accuracy(model, x_adv, y) == expected_accuracy(model, x, y) == pytest.approx(0.9, abs=THREE_SIGMA)


def test_the_harness_reports_that_accuracy(tmp_path: Path) -> None:
    x, y = readable(N)
    np.savez(tmp_path / "signs.npz", x_train=x, y_train=y, x_test=x, y_test=y, class_names=["a", "b", "c", "d"])
    data = load_dataset(str(tmp_path / "signs.npz"), tmp_path)
    spec = ModelSpec("cnn-small", 4, data.in_shape, 1, NeuronSpec(), data.mean, data.std)
    attack = parse_attack("autoattack-rand:eot=1", "1e-9")
    cell = CellSpec("train:x", spec, data.test_hash, 384, attack, SCORING_DRAWS, 0, data.name, "none", 0)
    results = list(evaluate(ErrsAtRandom(), data, [cell], device=torch.device("cpu")))
    outcome = Outcome.concatenate([result.outcomes[cell] for result in results])
    assert outcome.last.shape == (384, SCORING_DRAWS)
    assert outcome.last.mean() == pytest.approx(0.9, abs=THREE_SIGMA * (N / 384) ** 0.5)
    assert np.array_equal(outcome.last, outcome.clean)


def test_on_a_smooth_network_it_is_at_least_as_strong_as_pgd(rng: RNG) -> None:
    model, x, threat = smooth_net(), images(60), Threat(Fraction(1, 32))
    y = predicted(model, x)
    x_adv = autorand(model, x, y, threat, rng=rng(60), steps=20)
    plain = pgd(model, x, y, threat, steps=20, alpha=1 / 100, rng=rng(60))[20].last
    ours, theirs = ((predicted(model, image) == y).sum() for image in (x_adv, plain))
    assert 0 < ours <= theirs < 60
    assert inside(x, x_adv, threat)


def test_it_lowers_the_expected_accuracy_of_a_noisy_spiking_network(rng: RNG) -> None:
    model, x = spiking_net(NeuronSpec("nlif", params=(("noise_var", 0.4),))), images(30)
    with noise_stream(model, 5, torch.arange(30)), torch.no_grad():
        y = torch.stack([model(x) for _ in range(20)]).mean(0).argmax(1)
    threat = Threat(Fraction(1, 4))
    before = state_of(model), x.clone(), y.clone()
    with noise_stream(model, 1, torch.arange(30)), estimating(model, None, 4):
        x_adv = autorand(model, x, y, threat, rng=rng(30), steps=8)
    assert_same(before, (state_of(model), x, y))
    assert inside(x, x_adv, threat)
    assert expected_accuracy(model, x_adv, y) < expected_accuracy(model, x, y) - 0.1


def test_two_classes_need_another_second_loss(rng: RNG) -> None:
    model, x, threat = smooth_net(2), images(10), Threat(Fraction(1, 16))
    y = predicted(model, x)
    with pytest.raises(ValueError, match="loss=margin"):
        autorand(model, x, y, Threat(Fraction(1, 10**6)), rng=rng(10), steps=2)
    x_adv = autorand(model, x, y, threat, rng=rng(10), steps=5, loss="margin")
    assert (predicted(model, x_adv) != y).any()


def test_the_harness_averages_over_as_many_draws_as_the_official_attack() -> None:
    assert AUTORAND.eot == 20 and STEPS == 100
    assert AUTORAND.defaults == {"loss": "dlr"}
    assert not AUTORAND.deterministic_only and not AUTORAND.own_batches
