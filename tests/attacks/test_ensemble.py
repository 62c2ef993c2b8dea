"""The worst case of several attacks is, per image, never better than any of them."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks import Attack, Threat
from attacks.combinators import run_attack
from attacks.ensemble import Member, worst_of, written
from attacks.fgsm import CLEAN, FGSM, fgsm
from attacks.gradients import estimating, parse_gradient
from attacks.losses import margin
from attacks.pgd import PGD
from attacks.sweep import SURROGATES, sweep
from models.neurons import NeuronSpec
from models.random import CounterRNG, noise_stream

THREAT = Threat(Fraction(1, 8))
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
RNG = Callable[..., CounterRNG]
MEMBERS = [
    Member(FGSM, params={"loss": "ce"}),
    Member(PGD, 3, {"alpha": 0.05}),
    Member(PGD, 3, {"alpha": 0.05}, parse_gradient("arctan:alpha=4")),
    Member(PGD, 3, {"alpha": 0.05}, parse_gradient("rga")),
]


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return margin(model(x), y)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_it_is_never_weaker_than_a_member(count: int, rng: RNG) -> None:
    model, x, y = spiking_net(dtype=torch.float64), images(16, dtype=torch.float64), labels(16)
    members = MEMBERS[:count]
    worst = loss_of(model, worst_of(members, model, x, y, THREAT, rng=rng(16)).last, y)
    standing = loss_of(model, x, y) < 0
    broken_by_some = ~standing
    for number, member in enumerate(members):
        path = run_attack(
            member.attack, model, x, y, THREAT, rng=rng(16).fork(number), steps=(member.steps,),
            gradient=member.gradient, **member.params,
        )  # fmt: skip
        for candidate in path[member.steps]:
            alone = loss_of(model, candidate, y)
            broken_by_some |= alone >= 0
            unbroken = worst < 0
            assert bool((worst >= alone - 1e-9)[unbroken].all())
    assert torch.equal(worst >= 0, broken_by_some)
    assert bool(broken_by_some.any())
    assert not bool(broken_by_some.all()) or count > 1


def counting(calls: list[int]) -> Attack:
    def run(model: nn.Module, x: Tensor, *_: Any, **__: Any) -> Tensor:
        calls.append(len(x))
        return x.clone()

    return Attack(run, "counts its images")


def test_an_image_that_is_broken_is_left_alone(rng: RNG) -> None:
    model, x, y = spiking_net(), images(16), labels(16)
    calls: list[int] = []
    candidate = worst_of([*MEMBERS[:2], Member(counting(calls))], model, x, y, THREAT, rng=rng(16)).last
    left = int((loss_of(model, candidate, y) < 0).sum())
    assert calls == ([left] if left else [])
    assert 0 < left < 16


def test_images_that_are_wrong_already_stay_as_they_are(rng: RNG) -> None:
    model, x = spiking_net(), images(16)
    y = (model(x).argmax(1) + 1) % 4
    calls: list[int] = []
    assert torch.equal(worst_of([Member(counting(calls))], model, x, y, THREAT, rng=rng(16)).last, x)
    assert calls == []


def test_a_noisy_network_s_candidates_meet_the_same_noise(rng: RNG) -> None:
    """Two identical proposals are equally strong: the first is kept, and neither wins by a lucky draw."""
    model, x, y = spiking_net(NOISY), images(12), labels(12)
    with noise_stream(model, 3, torch.arange(12)):
        one = worst_of([Member(FGSM, params={"loss": "ce"})], model, x, y, THREAT, rng=rng(12)).last
    with noise_stream(model, 3, torch.arange(12)):
        two = worst_of(
            [Member(FGSM, params={"loss": "ce"}), Member(CLEAN), Member(CLEAN)], model, x, y, THREAT, rng=rng(12)
        ).last
    assert torch.equal(one, two)


@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_neither_batch_nor_order_matters(neuron: NeuronSpec) -> None:
    model = spiking_net(neuron, dtype=torch.float64)
    x, y = images(9, dtype=torch.float64), labels(9)

    def attack(index: Tensor) -> Tensor:
        with noise_stream(model, 11, index):
            return worst_of(MEMBERS, model, x[index], y[index], THREAT, rng=CounterRNG(5, index)).last

    whole, order = attack(torch.arange(9)), torch.tensor([4, 8, 0, 2, 1, 7, 3, 6, 5])
    parts = torch.cat([attack(order[:4]), attack(order[4:])])
    assert torch.allclose(parts, whole[order], rtol=0, atol=1e-9)


def test_the_sweep_is_at_least_as_strong_as_pgd_through_the_network_s_own_surrogate(rng: RNG) -> None:
    model, x, y = spiking_net(), images(24), labels(24)
    swept = sweep(model, x, y, THREAT, steps=3, alpha=0.05, rng=rng(24))[3].last
    plain = PGD.run(model, x, y, THREAT, steps=3, alpha=0.05, rng=rng(24))[3].last
    assert SURROGATES[0] is None
    assert int((loss_of(model, swept, y) < 0).sum()) <= int((loss_of(model, plain, y) < 0).sum())
    assert float((swept.double() - x.double()).abs().max()) <= 1 / 8
    assert not torch.equal(swept, fgsm(model, x, y, THREAT, rng=rng(24)))


def test_a_proposal_of_nan_never_wins(rng: RNG) -> None:
    model, x, y = spiking_net(), images(12), labels(12)

    def broken(model: nn.Module, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.full_like(x, torch.nan)

    alone = worst_of(MEMBERS[:1], model, x, y, THREAT, rng=rng(12)).last
    both = worst_of([MEMBERS[0], Member(Attack(broken, "NaN"))], model, x, y, THREAT, rng=rng(12)).last
    assert torch.equal(alone, both)
    assert bool(worst_of([Member(Attack(broken, "NaN"))], model, x, y, THREAT, rng=rng(12)).last.isfinite().all())


def test_an_ensemble_hands_an_outer_gradient_with_memory_to_each_member_anew(rng: RNG) -> None:
    model, x, y = spiking_net(), images(16), labels(16)
    members = [Member(PGD, 3, {"alpha": 0.05}), Member(PGD, 3, {"alpha": 0.05})]
    with estimating(model, parse_gradient("assg")):
        found = worst_of(members, model, x, y, THREAT, rng=rng(16)).last
    named = [Member(PGD, 3, {"alpha": 0.05}, parse_gradient("assg"))] * 2
    assert torch.equal(found, worst_of(named, model, x, y, THREAT, rng=rng(16)).last)


def test_what_an_ensemble_depends_on_is_written_down() -> None:
    plain = written(MEMBERS)
    assert plain == written(list(MEMBERS))
    changed = [
        MEMBERS[:-1],
        [*MEMBERS[:-1], replace(MEMBERS[-1], steps=4)],
        [*MEMBERS[:-1], replace(MEMBERS[-1], gradient=None)],
        [*MEMBERS[:-1], replace(MEMBERS[-1], params={"alpha": 0.1})],
        [*MEMBERS[:-1], replace(MEMBERS[-1], attack=replace(PGD, version=PGD.version + 1))],
    ]
    assert len({plain, *(written(members) for members in changed)}) == 6
