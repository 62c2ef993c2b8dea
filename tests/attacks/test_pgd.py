"""PGD's trajectory: snapshots, the best iterate, restarts, refusals."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks import Threat, ball
from attacks.base import Attack
from attacks.combinators import restarted, run_attack
from attacks.fgsm import rfgsm
from attacks.losses import margin
from attacks.pgd import PGD, pgd
from models.neurons import NeuronSpec
from models.random import CounterRNG, noise_stream

THREAT = Threat(Fraction(1, 8))
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
RNG = Callable[..., CounterRNG]


@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_a_snapshot_is_bit_equal_to_a_shorter_run(neuron: NeuronSpec, rng: RNG) -> None:
    model, x, y = spiking_net(neuron), images(6), labels(6)

    def run(steps: int, *snapshots: int) -> dict[int, object]:
        with noise_stream(model, 3, torch.arange(6)):
            return dict(pgd(model, x, y, THREAT, steps=steps, alpha=0.02, rng=rng(6), snapshots=snapshots))

    long = run(20, 7, 10)
    assert sorted(long) == [7, 10, 20]
    for steps in (7, 10, 20):
        short = run(steps)[steps]
        for kept, alone in zip(long[steps], short, strict=True):  # type: ignore[call-overload]
            assert torch.equal(kept, alone)
    assert not torch.equal(long[7].last, long[20].last)  # type: ignore[attr-defined]


def test_best_is_the_visited_point_of_largest_margin(rng: RNG) -> None:
    model, x, y = spiking_net(), images(8), labels(8)
    steps = 9
    path = pgd(model, x, y, THREAT, steps=steps, alpha=0.05, rng=rng(8), snapshots=range(1, steps))
    start = ball(x, THREAT).random_point(rng(8))
    visited = [start] + [path[step].last for step in range(1, steps)]
    with torch.no_grad():
        margins = torch.stack([margin(model(point), y) for point in visited])
        highest = margin(model(path[steps].best), y)
    assert torch.equal(highest, margins.amax(0))
    assert int(margins.argmax(0).max()) < len(visited)
    assert float((highest - margins[-1]).max()) > 0


def test_without_random_start_it_begins_at_x(rng: RNG) -> None:
    model, x, y = spiking_net(), images(4), labels(4)
    first = pgd(model, x, y, THREAT, steps=1, alpha=0.01, rng=rng(4), random_start=False)[1]
    assert torch.equal(first.best, x)


def test_the_random_start_differs_between_samples_and_keys(rng: RNG) -> None:
    x = images(1).expand(3, 1, 8, 8)
    region = ball(x, THREAT)
    starts = region.random_point(rng(3))
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts, region.random_point(rng(3, key=8)))
    assert torch.equal(starts, region.random_point(rng(3)))


def test_eps_zero_returns_the_clean_images(rng: RNG) -> None:
    model, x, y = spiking_net(), images(4), labels(4)
    candidate = pgd(model, x, y, Threat(Fraction(0)), steps=3, alpha=0.0, rng=rng(4))[3]
    assert torch.equal(candidate.last, x)
    assert torch.equal(candidate.best, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0, "alpha": 0.1}, "steps must be at least 1"),
        ({"steps": -3, "alpha": 0.1}, "steps must be at least 1"),
        ({"steps": 3, "alpha": -0.1}, "alpha"),
        ({"steps": 3, "alpha": float("nan")}, "alpha"),
        ({"steps": 3, "alpha": 0.1, "snapshots": (0,)}, "snapshots"),
        ({"steps": 3, "alpha": 0.1, "snapshots": (4,)}, "snapshots"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str, rng: RNG) -> None:
    with pytest.raises(ValueError, match=message):
        pgd(spiking_net(), images(2), labels(2), THREAT, rng=rng(2), **arguments)  # type: ignore[arg-type]


def test_rfgsm_refuses_l2(rng: RNG) -> None:
    with pytest.raises(ValueError, match="linf"):
        rfgsm(spiking_net(), images(2), labels(2), Threat(Fraction(1), "l2"), rng=rng(2))


class Bumpy(nn.Module):
    """Logits (0, f) with many local maxima of f, so that restarts matter."""

    def forward(self, x: Tensor) -> Tensor:
        f = (40 * x).sin().flatten(1).sum(1) + x.flatten(1).sum(1)
        return torch.stack([torch.zeros_like(f), f], 1)


def test_restarts_keep_the_stronger_run_of_each_sample(rng: RNG) -> None:
    model, x, y = Bumpy(), images(12), torch.zeros(12, dtype=torch.long)
    arguments = {"steps": (2, 4), "alpha": 0.01}
    single = restarted(PGD, 1, model, x, y, THREAT, rng=rng(12), **arguments)
    alone = [run_attack(PGD, model, x, y, THREAT, rng=rng(12).fork(k), **arguments) for k in range(3)]
    together = restarted(PGD, 3, model, x, y, THREAT, rng=rng(12), **arguments)
    for steps in (2, 4):
        assert torch.equal(single[steps].last, alone[0][steps].last)
        for field in ("last", "best"):
            margins = torch.stack([margin(model(getattr(path[steps], field)), y) for path in alone])
            kept = margin(model(getattr(together[steps], field)), y)
            assert torch.equal(kept, margins.amax(0))
            assert len(set(margins.argmax(0).tolist())) > 1


def test_run_attack_gives_every_result_the_same_form(rng: RNG) -> None:
    x, y = images(2), labels(2)

    def plain(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, rng: CounterRNG) -> Tensor:
        return x + 1

    def stepped(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, rng: CounterRNG, steps: int) -> Tensor:
        return x + steps

    one = run_attack(Attack(plain, ""), spiking_net(), x, y, THREAT, rng=rng(2))
    many = run_attack(Attack(stepped, "", takes_steps=True), spiking_net(), x, y, THREAT, rng=rng(2), steps=(3, 5))
    assert torch.equal(one[0].last, x + 1)
    assert list(many) == [5]
    assert torch.equal(many[5].best, x + 5)
