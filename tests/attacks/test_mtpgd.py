"""Multi-targeted PGD: every class in turn, snapshots, and a fair choice between the targets."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks import Threat, ball
from attacks.combinators import run_attack
from attacks.gradients import estimating
from attacks.gradients.assg import ASSG
from attacks.losses import margin
from attacks.mtpgd import MTPGD, mtpgd
from attacks.pgd import pgd
from attacks.threat import Norm
from models.neurons import NeuronSpec
from models.random import CounterRNG, active_noise_stream, derive_key, noise_stream

THREAT = Threat(Fraction(1, 8))
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
RNG = Callable[..., CounterRNG]


class Decoy(nn.Module):
    """The runner-up, class 1, saturates just below class 0; class 2 is far behind and wins once the image is bright."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        decoy = -0.1 - 0.2 * (8 * (mean - 0.5)).sigmoid()
        return torch.stack([0 * mean, decoy, 10 * (mean - 0.56)], 1)


def test_a_target_succeeds_where_the_runner_up_misleads(rng: RNG) -> None:
    """Each loss's gradient follows the runner-up down, away from the class that could win."""
    x, y = torch.full((6, 1, 8, 8), 0.5), torch.zeros(6, dtype=torch.long)
    # Momentum included, ten steps stay short of where class 2 becomes the runner-up.
    untargeted = pgd(Decoy(), x, y, THREAT, steps=20, alpha=0.02, rng=rng(6), loss="margin")[20]
    for point in untargeted:
        assert bool((margin(Decoy()(point), y) < 0).all())
    targeted = mtpgd(Decoy(), x, y, THREAT, steps=20, alpha=0.02, rng=rng(6))[20]
    for point in targeted:
        assert bool((margin(Decoy()(point), y) > 0).all())
    # The largest clean logit first: one target is the decoy.
    single = mtpgd(Decoy(), x, y, THREAT, steps=20, alpha=0.02, rng=rng(6), targets=1)[20]
    assert bool((margin(Decoy()(single.last), y) < 0).all())


def targets_of(z: Tensor, own: int) -> list[int]:
    return sorted((c for c in range(len(z)) if c != own), key=lambda c: -float(z[c]))


def slow_reference(model: nn.Module, x: Tensor, y: Tensor, rng: CounterRNG, steps: int, count: int) -> Tensor:
    """Margins of all points visited, [targets, steps + 1, N], written from the formulas."""
    region, margins = ball(x, THREAT), []
    targets = torch.tensor([targets_of(z, own) for z, own in zip(model(x).detach(), y.tolist(), strict=True)])
    for number in range(count):
        x_adv = region.random_point(CounterRNG(derive_key(rng.key, "target", number), rng.samples))
        m, own = torch.zeros_like(x), []
        for _ in range(steps + 1):
            at = x_adv.clone().requires_grad_()
            z = model(at)
            own.append(margin(z.detach(), y))
            gap = z.gather(1, targets[:, number, None]) - z.gather(1, y[:, None])
            (g,) = torch.autograd.grad(gap.sum(), at)
            norm = g.abs().sum((1, 2, 3), keepdim=True)
            m = 0.9 * m + torch.where(norm > 0, g / norm, 0)
            x_adv = region.project(x_adv + 0.03 * m.sign())
        margins.append(torch.stack(own))
    return torch.stack(margins)


@pytest.mark.parametrize(("classes", "targets", "count"), [(4, 0, 3), (4, 2, 2), (14, 0, 9), (14, 13, 13), (2, 0, 1)])
def test_it_keeps_the_best_of_all_targets(classes: int, targets: int, count: int, rng: RNG) -> None:
    model = spiking_net(classes=classes, dtype=torch.float64)
    x, y = images(6, dtype=torch.float64), labels(6, classes)
    expected = slow_reference(model, x, y, rng(6), 5, count)
    found = mtpgd(model, x, y, THREAT, steps=5, alpha=0.03, rng=rng(6), targets=targets)[5]
    assert torch.allclose(margin(model(found.last), y), expected[:, -1].amax(0), rtol=0, atol=1e-12)
    assert torch.allclose(margin(model(found.best), y), expected.flatten(0, 1).amax(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_a_snapshot_is_bit_equal_to_a_shorter_run(neuron: NeuronSpec, rng: RNG) -> None:
    model, x, y = spiking_net(neuron), images(6), labels(6)

    def run(steps: int, *others: int) -> dict[int, Tensor]:
        with noise_stream(model, 3, torch.arange(6)):
            path = run_attack(MTPGD, model, x, y, THREAT, rng=rng(6), steps=(*others, steps), eot=2, alpha=0.02)
        return {step: torch.stack(candidate) for step, candidate in path.items()}

    long = run(12, 3, 7)
    assert sorted(long) == [3, 7, 12]
    for steps in (3, 7, 12):
        assert torch.equal(long[steps], run(steps)[steps])
    assert not torch.equal(long[3], long[12])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_with_memory_begins_anew_with_each_target(norm: Norm, rng: RNG) -> None:
    model, x, y = spiking_net(classes=6, dtype=torch.float64), images(8, dtype=torch.float64), labels(8, 6)

    def run(*steps: int) -> dict[int, Tensor]:
        path = run_attack(
            MTPGD, model, x, y, Threat(Fraction(1, 8), norm), rng=rng(8), steps=steps, alpha=0.02, gradient=ASSG()
        )
        return {step: torch.stack(candidate) for step, candidate in path.items()}

    assert torch.equal(run(1, 9)[1], run(1)[1])


class Coin(nn.Module):
    """Two equal targets; the winner of each call is noise, so a comparison on fresh draws would be of luck."""

    stochastic = True

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        stream = active_noise_stream()
        assert stream is not None
        self.draws.append(stream.draw)
        total = x.flatten(1).sum(1)
        return torch.stack([0 * total, total, total], 1) * stream.rng.uniform((1,), draw=stream.draw)


def test_every_target_meets_the_same_draws(rng: RNG) -> None:
    model, x, y = Coin(), images(5), torch.zeros(5, dtype=torch.long)
    with noise_stream(model, 3, torch.arange(5)):
        mtpgd(model, x, y, THREAT, steps=3, alpha=0.01, rng=rng(5), snapshots=(2,))
    clean, first, second = model.draws[0], model.draws[1:6], model.draws[6:]
    assert first == second
    steps, judged = [first[0], first[1], first[3]], [first[2], first[4]]
    assert steps == [1, 2, 3]
    assert judged[0] == judged[1]
    assert judged[0] not in {clean, *steps}


def test_averaging_over_noise_makes_the_proposal_depend_less_on_it(rng: RNG) -> None:
    model, x, y = spiking_net(NOISY), images(8), labels(8)

    def run(key: int, draws: int) -> Tensor:
        with noise_stream(model, key, torch.arange(8)), estimating(model, draws=draws):
            return mtpgd(model, x, y, THREAT, steps=6, alpha=0.03, rng=rng(8))[6].last

    assert torch.equal(run(0, 4), run(0, 4))
    spread = {draws: torch.stack([run(key, draws) for key in range(5)]).var(0).mean() for draws in (1, 16)}
    assert spread[16] < 0.75 * spread[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0, "alpha": 0.1}, "steps must be at least 1"),
        ({"steps": 3, "alpha": -0.1}, "alpha"),
        ({"steps": 3, "alpha": float("nan")}, "alpha"),
        ({"steps": 3, "alpha": 0.1, "targets": -1}, "targets"),
        ({"steps": 3, "alpha": 0.1, "snapshots": (4,)}, "snapshots"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str, rng: RNG) -> None:
    with pytest.raises(ValueError, match=message):
        mtpgd(spiking_net(), images(2), labels(2), THREAT, rng=rng(2), **arguments)  # type: ignore[arg-type]
