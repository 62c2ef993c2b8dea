"""On a shared model our attacks produce what ART, torchattacks and foolbox produce.

Pixels, eps and alpha are dyadic, so that no implementation rounds and equal
gradients must give equal images, bit for bit, over whole l_inf trajectories of
a spiking network. Where the attacks differ by definition, the test says how.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks import Threat
from attacks.fgsm import fgsm, rfgsm
from attacks.losses import cross_entropy
from attacks.pgd import pgd
from models.random import CounterRNG

EPS, ALPHA, N = 1 / 16, 1 / 64, 24
THREAT = Threat(Fraction(1, 16))
RNG = Callable[..., CounterRNG]


class Smooth(nn.Module):
    """A differentiable network: no step that could amplify a last-bit difference."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(2 * x)  # type: ignore[no-any-return]


def ours(model: nn.Module, steps: int, rng: RNG) -> Tensor:
    path = pgd(model, images(N), labels(N), THREAT, steps=steps, alpha=ALPHA, rng=rng(N), random_start=False)
    return path[steps].last


def art_attack(model: nn.Module, name: str, x: Tensor, **arguments: Any) -> Tensor:
    evasion = pytest.importorskip("art.attacks.evasion")
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 8, 8), 4, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = getattr(evasion, name)(classifier, batch_size=N, **arguments)
    one_hot = np.eye(4, dtype=np.float32)[labels(N).numpy()]
    return torch.from_numpy(attack.generate(x.numpy(), one_hot))


def foolbox_attack(model: nn.Module, name: str, eps: float, x: Tensor, **arguments: Any) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = getattr(foolbox.attacks, name)(**arguments)
    _, clipped, _ = attack(wrapped, x, foolbox.criteria.Misclassification(labels(N)), epsilons=eps)
    return clipped  # type: ignore[no-any-return]


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_pgd_equals_art_bit_for_bit(steps: int, rng: RNG) -> None:
    model = spiking_net()
    theirs = art_attack(
        model,
        "ProjectedGradientDescentPyTorch",
        images(N),
        eps=EPS,
        eps_step=ALPHA,
        max_iter=steps,
        num_random_init=0,
        verbose=False,
    )
    assert torch.equal(ours(model, steps, rng), theirs)


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_pgd_equals_torchattacks_bit_for_bit(steps: int, rng: RNG) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model = spiking_net()
    theirs = torchattacks.PGD(model, eps=EPS, alpha=ALPHA, steps=steps, random_start=False)(images(N), labels(N))
    assert torch.equal(ours(model, steps, rng), theirs)


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_pgd_equals_foolbox_bit_for_bit(steps: int, rng: RNG) -> None:
    model = spiking_net()
    theirs = foolbox_attack(model, "LinfPGD", EPS, images(N), abs_stepsize=ALPHA, steps=steps, random_start=False)
    assert torch.equal(ours(model, steps, rng), theirs)


def test_fgsm_equals_all_three(rng: RNG) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model = spiking_net()
    mine = fgsm(model, images(N), labels(N), THREAT, rng=rng(N))
    assert torch.equal(mine, art_attack(model, "FastGradientMethod", images(N), eps=EPS))
    assert torch.equal(mine, torchattacks.FGSM(model, eps=EPS)(images(N), labels(N)))
    assert torch.equal(mine, foolbox_attack(model, "FGSM", EPS, images(N)))


L2 = Threat(Fraction(1, 2), "l2")


def l2_runs(pixels: Tensor, rng: RNG) -> dict[str, Tensor]:
    """Ten l2 PGD steps on `pixels` by every implementation."""
    torchattacks = pytest.importorskip("torchattacks")
    model = Smooth().eval()
    theirs = torchattacks.PGDL2(model, eps=0.5, alpha=0.1, steps=10, random_start=False)
    name = "ProjectedGradientDescentPyTorch"
    budget = {"norm": 2, "eps": 0.5, "eps_step": 0.1, "max_iter": 10, "num_random_init": 0, "verbose": False}
    return {
        "ours": pgd(model, pixels, labels(N), L2, steps=10, alpha=0.1, rng=rng(N), random_start=False)[10].last,
        "art": art_attack(model, name, pixels, **budget),
        "torchattacks": theirs(pixels, labels(N)),
        "foolbox": foolbox_attack(model, "L2PGD", 0.5, pixels, abs_stepsize=0.1, steps=10, random_start=False),
    }


def test_l2_pgd_agrees_with_all_three_away_from_the_box(rng: RNG) -> None:
    """Where they differ: all three shift the gradient's norm by 1e-7 to 1e-12 before dividing; we do not."""
    runs = l2_runs(0.35 + 0.3 * images(N), rng)
    mine = runs.pop("ours")
    for name, theirs in runs.items():
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-5), name


def test_at_the_box_l2_pgd_is_at_least_as_strong_as_theirs(rng: RNG) -> None:
    """Where they differ: torchattacks and foolbox scale onto the sphere, then clip, and so give budget away;
    ART clips, then scales, which bends the step; ours is the exact projection."""
    x, model = images(N), Smooth().eval()
    runs = l2_runs(x, rng)
    losses = {name: cross_entropy(model(x_adv), labels(N)).mean().item() for name, x_adv in runs.items()}
    lengths = {name: (x_adv.double() - x.double()).flatten(1).norm(dim=1) for name, x_adv in runs.items()}
    assert float(lengths["ours"].max()) <= 0.5
    for name in ("art", "torchattacks", "foolbox"):
        assert not torch.allclose(runs["ours"], runs[name], rtol=0, atol=1e-4)
        assert losses["ours"] > losses[name] - 1e-4, name
    for name in ("torchattacks", "foolbox"):
        assert float((lengths["ours"] - lengths[name]).max()) > 1e-3


class Signs(CounterRNG):
    """Replays given signs as this project's uniform numbers."""

    def __init__(self, signs: Tensor) -> None:
        super().__init__(0, torch.arange(len(signs)))
        self.signs = signs

    def uniform(self, *_: object, **__: object) -> Tensor:
        return 0.5 + 0.25 * self.signs


def test_rfgsm_is_one_step_of_torchattacks_rfgsm() -> None:
    """Where they differ: torchattacks takes `steps` gradient steps, ten by default; the SNN papers take one."""
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = spiking_net(), images(N), labels(N)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        signs = torch.randn_like(x).sign()
        torch.manual_seed(4)
        theirs = torchattacks.RFGSM(model, eps=EPS, alpha=EPS / 2, steps=1)(x, y)
        torch.manual_seed(4)
        ten = torchattacks.RFGSM(model, eps=EPS, alpha=EPS / 2)(x, y)
    mine = rfgsm(model, x, y, THREAT, rng=Signs(signs))
    assert torch.equal(mine, theirs)
    assert not torch.equal(mine, ten)


def test_ours_alone_stays_inside_the_ball_when_rounding_interferes(rng: RNG) -> None:
    """Where they differ: with eps = 8/255 their float32 clipping leaves the float64 ball; ours may not."""
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = spiking_net(), images(N), labels(N)
    eps = 8 / 255
    theirs = torchattacks.FGSM(model, eps=eps)(x, y)
    mine = fgsm(model, x, y, Threat(Fraction(8, 255)), rng=rng(N))
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-7)
    assert float((theirs.double() - x.double()).abs().max()) > eps
    assert float((mine.double() - x.double()).abs().max()) <= eps
