"""APGD against the official implementation, step by step, and what it promises beyond it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import pytest
import torch
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks import Threat
from attacks.apgd import apgd, checkpoints, random_edge_point
from attacks.gradients import estimating
from attacks.losses import LOSSES, margin
from attacks.pgd import pgd
from attacks.projections import L2Ball
from models.neurons import NeuronSpec
from models.random import CounterRNG, noise_stream

N, BOOST = 16, 8.0
RNG = Callable[..., CounterRNG]
THREATS = {"linf": Threat(Fraction(1, 32)), "l2": Threat(Fraction(1, 8), "l2")}
STEPS = pytest.mark.parametrize("steps", [1, 2, 7, 10, 20, 40, 100])


class Curved(nn.Module):
    """Smooth, with many local maxima of the loss inside the ball, and its visited points kept."""

    def __init__(self, classes: int = 10, frequency: float = 2.0) -> None:
        super().__init__()
        self.frequency = frequency
        generator = torch.Generator().manual_seed(0)
        self.inner = torch.randn(64, 96, generator=generator, dtype=torch.float64)
        self.outer = torch.randn(96, classes, generator=generator, dtype=torch.float64)
        self.offset = torch.zeros(classes, dtype=torch.float64)
        self.visited: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.visited.append(x.detach().clone())
        return (self.frequency * (x.flatten(1) - 0.5) @ self.inner).sin() @ self.outer / 3 + self.offset


@contextmanager
def float64_by_default() -> Iterator[None]:
    """The official code keeps its losses and steps in torch's default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def problem(model: Curved, norm: str) -> tuple[Tensor, Tensor]:
    # Away from the box: at its walls the official l2 projection scales, then clips, and so gives budget away.
    x = images(40 * N, 1, 8, 8, dtype=torch.float64)
    x = 0.3 + 0.4 * x if norm == "l2" else x
    logits = model(x)
    y = logits.argmax(1)
    confident = margin(logits, y).argsort()[:N]
    return x[confident], y[confident]


def both(
    norm: str, loss: str, steps: int, frequency: float = 2.0
) -> tuple[Curved, Curved, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Our model after our run, theirs after theirs, y, our product, and (accuracy, best loss) of theirs."""
    official = pytest.importorskip("pyautoattack.autopgd_base")
    model, threat, rng = Curved(frequency=frequency), THREATS[norm], CounterRNG(7, torch.arange(N))
    x, y = problem(model, norm)
    theirs = Curved(frequency=frequency)
    if loss == "dlr":
        # Most images hold out, where this loss makes sense.
        model.offset = theirs.offset = BOOST * torch.nn.functional.one_hot(y, 10).double()
    model.visited.clear()
    mine = apgd(model, x, y, threat, steps=steps, rng=rng, loss=loss)[steps]
    assert mine.last is mine.best
    with float64_by_default():
        attack = official.APGDAttack(
            theirs, n_iter=steps, norm=norm.capitalize(), eps=float(threat.eps), loss=loss, device="cpu"
        )
        attack.init_hyperparam(x)
        start = random_edge_point(x, threat, rng)
        _, accuracy, best_loss, _ = attack.attack_single_run(x, y, x_init=start)
    return model, theirs, y, mine.best, (accuracy, best_loss)


@STEPS
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_visits_the_official_points(norm: str, loss: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same start, same points step by step, same accuracy, same best loss.

    The l2 ball's inward margin is that of float32, wide enough to turn a decision; here it is 2^-40. What then is
    left turns decisions only where the loss has converged to its last bits, hence l2's tolerance. Where
    the true class comes third the dlr loss is 1 whatever the image, and each code follows its own rounding errors.
    """
    monkeypatch.setattr(L2Ball, "_LEAST_SHRINK", 2.0**-40)
    ours, theirs, y, product, (accuracy, best_loss) = both(norm, loss, steps)
    assert len(ours.visited) == len(theirs.visited) == steps + 1
    mine, official = torch.stack(ours.visited), torch.stack(theirs.visited)
    with torch.no_grad():
        logits = torch.stack([ours(point) for point in mine])
        losses = torch.stack([LOSSES[loss](z, y) for z in logits])
        margins = torch.stack([margin(z, y) for z in logits])
        last, correct = LOSSES[loss](ours(product), y), margin(ours(product), y) < 0
    same = torch.ones(N, dtype=torch.bool)
    if loss == "dlr":
        same = ~((logits > logits.gather(2, y.expand(steps + 1, N)[..., None])).sum(2) > 1).any(0)
        assert 2 * int(same.sum()) >= N
    tolerance = 1e-9 if norm == "linf" else 1e-6
    assert torch.allclose(mine[:, same], official[:, same], rtol=0, atol=tolerance)
    assert torch.allclose(losses.amax(0)[same], best_loss[same], rtol=0, atol=tolerance)
    assert torch.equal((margins < 0).all(0)[same], accuracy.bool()[same])
    # The official product is the best loss's point whether or not it fools; ours fools where any point does.
    assert torch.equal(correct, (margins < 0).all(0))
    expected = torch.where(correct, losses.amax(0), losses.where(margins >= 0, -torch.inf).amax(0))
    assert torch.allclose(last, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [3, 7, 10])
def test_it_visits_the_official_points_where_the_first_step_overshoots(steps: int) -> None:
    """A first interval without any improvement does not halve the step by itself."""
    ours, theirs, y, *_ = both("linf", "ce", steps, frequency=12.0)
    losses = torch.stack([LOSSES["ce"](ours(point), y) for point in ours.visited[:2]])
    assert bool((losses[1] < losses[0]).any())
    for mine, official in zip(ours.visited[: steps + 1], theirs.visited, strict=True):
        assert torch.allclose(mine, official, rtol=0, atol=1e-9)


def test_the_runs_that_are_compared_halve_their_steps_and_go_back() -> None:
    """Or agreement would say nothing about the step size control."""
    ours, _, y, _, _ = both("linf", "ce", 40)
    path = torch.stack(ours.visited)
    with torch.no_grad():
        losses = torch.stack([LOSSES["ce"](ours(point), y) for point in path])
    moves = path.diff(dim=0).flatten(2).abs().amax(2)
    assert bool((losses.diff(dim=0) < 0).any(0).all())
    assert bool((moves[-1] < 2 / 32 / 8).all())
    assert float(moves[1].max()) > 1 / 32


def official_checks(steps: int) -> list[int]:
    """The checkpoints by counting down, as the official loop does."""
    interval, counter, checks = max(int(0.22 * steps), 1), 0, []
    for step in range(1, steps + 1):
        counter += 1
        if counter == interval:
            checks.append(step)
            counter, interval = 0, max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return checks


def test_the_schedule_is_in_whole_numbers() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(7) == [1, 2, 3, 4, 5, 6, 7]
    for steps in range(1, 1200):
        assert checkpoints(steps) == official_checks(steps)
    with pytest.raises(ValueError, match="at least 1"):
        checkpoints(0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [20, 100])
def test_its_mean_loss_is_at_least_pgds_at_equal_cost(norm: str, steps: int, rng: RNG) -> None:
    model, threat = Curved(), THREATS[norm]
    x, y = problem(model, norm)
    alpha = float(threat.eps) * 51 / 160
    walked = pgd(model, x, y, threat, steps=steps + 1, alpha=alpha, rng=rng(N))[steps + 1]
    mine = apgd(model, x, y, threat, steps=steps, rng=rng(N))[steps].last
    with torch.no_grad():
        for theirs in walked:
            assert LOSSES["ce"](model(mine), y).mean() >= LOSSES["ce"](model(theirs), y).mean()


class Crossing(nn.Module):
    """Class 1 wins where the mean pixel is below 1/2; the cross-entropy of class 0 is larger far above it."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        rising = 2.55 + 30 * (mean - 0.54)
        return torch.stack([2.6 + 0 * mean, 2.2 + 0.5 * (mean < 0.5), rising, rising], 1)


def test_a_fooled_point_comes_before_one_of_larger_loss(rng: RNG) -> None:
    x, y = torch.full((12, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(12, dtype=torch.long)
    model, threat = Crossing(), Threat(Fraction(1, 25))
    product = apgd(model, x, y, threat, steps=10, rng=rng(12))[10].last
    below = random_edge_point(x, threat, rng(12)).flatten(1).mean(1) < 0.5
    losses = LOSSES["ce"](model(product), y)
    assert 2 <= int(below.sum()) <= 10
    assert torch.equal(margin(model(product), y) > 0, below)
    assert losses[~below].min() > losses[below].max()


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_two_classes_are_enough_for(loss: str, rng: RNG) -> None:
    model = Curved(classes=2)
    x, y = problem(model, "linf")
    mine = apgd(model, x, y, THREATS["linf"], steps=20, rng=rng(N), loss=loss)[20].last
    assert bool((margin(model(mine), y) > margin(model(x), y)).all())


def test_two_classes_have_no_dlr(rng: RNG) -> None:
    with pytest.raises(ValueError, match="at least 3 classes"):
        apgd(Curved(2), *problem(Curved(2), "linf"), THREATS["linf"], steps=3, rng=rng(N), loss="dlr")


def test_averaging_over_noise_makes_the_proposal_depend_less_on_it(rng: RNG) -> None:
    model = spiking_net(NeuronSpec("nlif", params=(("noise_var", 0.4),)))
    x, y = images(8), labels(8)

    def run(key: int, draws: int) -> Tensor:
        with noise_stream(model, key, torch.arange(8)), estimating(model, draws=draws):
            return apgd(model, x, y, Threat(Fraction(1, 8)), steps=10, rng=rng(8))[10].last

    assert torch.equal(run(0, 4), run(0, 4))
    spread = {draws: torch.stack([run(key, draws) for key in range(6)]).var(0).mean() for draws in (1, 16)}
    assert spread[16] < 0.75 * spread[1]
