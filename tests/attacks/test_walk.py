"""Leaving images alone whose path is known changes nothing but the cost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks import Threat
from attacks.base import Candidate, per_sample
from attacks.gradients import estimating, frozen, input_gradient
from attacks.losses import LOSSES, margin
from attacks.pgd import pgd
from attacks.projections import ball
from attacks.walk import LEAST_ROWS, Walk, is_memoryless
from models.neurons import NeuronSpec
from models.random import CounterRNG, noise_stream

NOISY = NeuronSpec("nlif", params=(("noise_var", 0.2),))


def written_out(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: Sequence[int], alpha: float, rng: CounterRNG
) -> dict[int, Candidate]:
    """PGD as the formula says, every image and every step."""
    region = ball(x, threat)
    point = region.random_point(rng)
    best, best_margin = point, x.new_full((len(x),), -torch.inf)
    path = {}
    with frozen(model):
        for step in range(1, max(steps) + 1):
            at = input_gradient(model, point, y, LOSSES["ce"])
            visited = margin(at.logits, y)
            best = torch.where(per_sample(visited > best_margin, x), point, best)
            best_margin = torch.maximum(visited, best_margin)
            point = region.project(point + alpha * region.steepest(at.grad))
            if step in steps:
                path[step] = Candidate(point, best)
    return path


@contextmanager
def counting(model: nn.Module) -> Iterator[list[int]]:
    """The sizes of the batches that the model is asked about."""
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    yield sizes
    hook.remove()


class Foreign(nn.Module):
    """A module that is nobody's here; its gradient may depend on what it will."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


class Ties(nn.Module):
    """Right at the start, undecided within reach, right again further on: along one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.flatten(1)[:, :1] - 0.5 - 1 / 64).abs()
        return torch.cat([distance, torch.zeros_like(distance) + 0 * distance], 1)


@pytest.mark.parametrize("n", [3, 11, 16, 40, 70])
@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", Fraction(1, 16), 1 / 64), ("l2", Fraction(1, 2), 1 / 8)])
@pytest.mark.parametrize("neuron", [None, NOISY], ids=["plain", "noisy"])
def test_it_gives_the_points_of_the_formula(
    n: int, norm: str, eps: Fraction, alpha: float, neuron: NeuronSpec | None
) -> None:
    model, x, y = spiking_net(neuron), images(n), labels(n)
    threat, steps = Threat(eps, norm), (1, 2, 3, 5, 17, 60)  # type: ignore[arg-type]
    rng = CounterRNG(1, torch.arange(n))
    with noise_stream(model, 3, torch.arange(n)):
        expected = written_out(model, x, y, threat, steps, alpha, rng)
    with noise_stream(model, 3, torch.arange(n)), counting(model) as sizes:
        found = pgd(model, x, y, threat, steps=60, alpha=alpha, rng=rng, snapshots=steps)
    assert set(found) == set(steps)
    for step in steps:
        assert torch.equal(found[step].last, expected[step].last)
        assert torch.equal(found[step].best, expected[step].best)
    if neuron is None and norm == "linf" and n > LEAST_ROWS:
        assert sum(sizes) < 60 * n
    if neuron is not None:
        assert sum(sizes) == 60 * n
    assert min(sizes) >= min(n, LEAST_ROWS)


@settings(max_examples=60)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 90), st.lists(st.integers(1, 90), max_size=5))
def test_any_tail_and_any_period(tail: int, period: int, steps: int, more: list[int]) -> None:
    """A path of numbers 0, 1, ..., tail - 1, then round and round."""

    def after(step: int) -> int:
        return step if step < tail else tail + (step - tail) % period

    wanted = {steps, *(step for step in more if step <= steps)}
    walk = Walk(torch.zeros(1, 1), wanted, watch=True)
    taken = 0
    for step in range(1, steps + 1):
        if not len(walk.left):
            break
        walk.move(torch.tensor([[float(after(step))]]), step)
        taken = step
    assert {step: int(point) for step, point in walk.kept.items()} == {step: after(step) for step in wanted}
    assert taken <= 3 * max(tail, period) + 2 * period


def test_early_stop_is_any_iterate_for_less() -> None:
    n = 60
    model, x, y = spiking_net(), images(n), labels(n)
    y = torch.where(torch.arange(n) % 3 > 0, model(x).argmax(1), y)
    threat, rng = Threat(Fraction(1, 32)), CounterRNG(1, torch.arange(n))
    both = pgd(model, x, y, threat, steps=20, alpha=1 / 64, rng=rng, snapshots=(3, 7))
    with counting(model) as sizes:
        stopped = pgd(model, x, y, threat, steps=20, alpha=1 / 64, rng=rng, snapshots=(3, 7), early_stop=True)
    assert set(stopped) == set(both)
    survivors = []
    for step, candidate in stopped.items():
        assert candidate.last is candidate.best
        with torch.no_grad():
            broken = margin(model(candidate.last), y) > 0
            expected = (margin(model(both[step].last), y) > 0) | (margin(model(both[step].best), y) > 0)
        assert torch.equal(broken, expected)
        survivors.append(int((~broken).sum()))
        assert torch.equal(candidate.last[~broken], both[step].last[~broken])
    assert 0 < survivors[0] < n
    assert sum(sizes) < 0.8 * 20 * n


def test_early_stop_stops_at_a_tie_which_is_no_correct_prediction() -> None:
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    arguments = {"steps": 4, "alpha": 1 / 64, "rng": CounterRNG(0, torch.arange(1)), "random_start": False}
    # The margin loss falls away from the tie on both sides, so the last iterate may be right again.
    stopped = pgd(Ties(), x, y, Threat(Fraction(1, 8)), loss="margin", early_stop=True, **arguments)[4]
    assert float(margin(Ties()(stopped.last), y)) == 0


def test_nothing_is_assumed_of_others_modules() -> None:
    n = 40
    model, x, y = Foreign(spiking_net()), images(n), labels(n)
    assert not is_memoryless(model, x)
    with counting(model) as sizes:
        pgd(model, x, y, Threat(Fraction(1, 16)), steps=60, alpha=1 / 64, rng=CounterRNG(1, torch.arange(n)))
    assert sum(sizes) == 60 * n


def test_early_stop_is_refused_where_success_may_be_luck() -> None:
    with pytest.raises(ValueError, match="network without noise"):
        pgd(
            spiking_net(NOISY), images(2), labels(2), Threat(Fraction(1, 8)),
            steps=2, alpha=0.1, rng=CounterRNG(0, torch.arange(2)), early_stop=True,
        )  # fmt: skip


def test_what_may_be_left_alone() -> None:
    from attacks.gradients.rates import RGA

    x = images(2)
    assert is_memoryless(spiking_net(), x)
    assert not is_memoryless(spiking_net(NOISY), x)
    assert not is_memoryless(spiking_net(), x.to("meta"))
    model = spiking_net()
    with estimating(model, RGA()):
        assert not is_memoryless(model, x)
