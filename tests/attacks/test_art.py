"""The bridge to ART: its attacks agree with ours where they are the same, are legal, and leave nothing behind."""

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks import evasion
from foreign import inside, linear_net, predicted, smooth_net, surroundings
from support import images, spiking_net
from test_purity import assert_same, oddly_set_up
from torch import Tensor, nn

from attacks import Threat
from attacks.external.art import ART, TARGETED_ONLY, art, backend, names, settle
from attacks.gradients import estimating
from attacks.pgd import pgd
from models.neurons import NeuronSpec
from models.random import CounterRNG

RNG = Callable[..., CounterRNG]
LINF, L2 = Threat(Fraction(1, 16)), Threat(Fraction(1, 2), "l2")
BOTH = pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
CHEAP: dict[str, dict[str, Any]] = {
    "ProjectedGradientDescent": {"max_iter": 5},
    "ProjectedGradientDescentNumpy": {"max_iter": 5, "num_random_init": 1},
    "AutoProjectedGradientDescent": {"max_iter": 5, "nb_random_init": 1},
    "MomentumIterativeMethod": {"max_iter": 5},
    "FastGradientMethod": {},
    "DeepFool": {"max_iter": 20},
    "SquareAttack": {"max_iter": 60},
    "HopSkipJump": {"max_iter": 1, "max_eval": 50, "init_eval": 5},
    "SaliencyMapMethod": {},
}


def attack(name: str, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, rng: CounterRNG) -> Tensor:
    return art(model, x, y, threat, rng=rng, name=name, **CHEAP[name])


@pytest.mark.parametrize("model", [smooth_net(), spiking_net()], ids=["smooth", "spiking"])
def test_pgd_without_a_random_start_is_ours_bit_by_bit(model: nn.Module, rng: RNG) -> None:
    x = images(20)
    y = predicted(model, x)
    threat, alpha = Threat(Fraction(1, 8)), 1 / 32
    options = {"name": "ProjectedGradientDescentPyTorch", "max_iter": 7, "eps_step": alpha}
    theirs = art(model, x, y, threat, rng=rng(20), **options)
    ours = pgd(model, x, y, threat, steps=7, alpha=alpha, rng=rng(20), random_start=False)[7].last
    assert torch.equal(theirs, ours)
    assert (predicted(model, ours) != y).any()


def test_pgd_in_l2_is_ours_but_for_rounding(rng: RNG) -> None:
    model, x = smooth_net(), 0.3 + 0.4 * images(20)
    y = predicted(model, x)
    options = {"name": "ProjectedGradientDescentPyTorch", "max_iter": 5, "eps_step": 0.1}
    theirs = art(model, x, y, L2, rng=rng(20), **options)
    ours = pgd(model, x, y, L2, steps=5, alpha=0.1, rng=rng(20), random_start=False)[5].last
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert (ours - x).flatten(1).norm(dim=1).min() > 0.4


@BOTH
@pytest.mark.parametrize("name", CHEAP)
def test_candidates_are_legal_and_most_attacks_fool_some(name: str, threat: Threat, rng: RNG) -> None:
    model, x = smooth_net(), images(12)
    y = predicted(model, x)
    x_adv = attack(name, model, x, y, threat, rng(12))
    assert x_adv.dtype == x.dtype and x_adv.shape == x.shape
    assert inside(x, x_adv, threat)
    assert not torch.equal(x_adv, x)
    fooled = int((predicted(model, x_adv) != y).sum())
    assert fooled or name in ("SaliencyMapMethod", "HopSkipJump")


def test_a_minimum_norm_attack_fools_exactly_those_within_the_budget(rng: RNG) -> None:
    model, x, threat = linear_net(), 0.15 + 0.7 * images(40), Threat(Fraction(3, 25), "l2")
    y = predicted(model, x)
    weight, logits = model[1].weight.detach(), model(x).detach()  # type: ignore[index]
    gap = (logits.gather(1, y[:, None]) - logits) / (weight[y][:, None] - weight[None]).squeeze().norm(dim=2)
    distance = gap.scatter(1, y[:, None], torch.inf).amin(1)
    near, far = distance < 0.115, distance > 0.125
    assert near.sum() > 5 and far.sum() > 5
    fooled = predicted(model, art(model, x, y, threat, rng=rng(40), name="DeepFool", epsilon=0.02)) != y
    assert fooled[near].all() and not fooled[far].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_of_any_dtype_come_back_in_the_ball_in_theirs(dtype: torch.dtype, rng: RNG) -> None:
    model, x = smooth_net(dtype=dtype), images(12, dtype=dtype) * 0.9 + 0.01
    y = predicted(model, x)
    x_adv = attack("DeepFool", model, x, y, LINF, rng(12))
    assert x_adv.dtype == dtype and inside(x, x_adv, LINF)
    misread = (y + 1) % 4
    unmoved = attack("DeepFool", model, x, misread, LINF, rng(12))
    assert inside(x, unmoved, LINF)


@pytest.mark.parametrize("name", ["ProjectedGradientDescentNumpy", "SquareAttack", "HopSkipJump"])
def test_it_repeats_itself_and_its_key_selects_its_random_numbers(name: str, rng: RNG) -> None:
    model, x = smooth_net(), images(6)
    y = predicted(model, x)
    threat = Threat(Fraction(3, 4))
    first = attack(name, model, x, y, threat, rng(6))
    np.random.seed(99)
    torch.manual_seed(99)
    assert torch.equal(first, attack(name, model, x, y, threat, rng(6)))
    assert not torch.equal(first, attack(name, model, x, y, threat, rng(6, key=8)))


@pytest.mark.parametrize("name", CHEAP)
def test_nothing_is_touched(name: str, rng: RNG) -> None:
    model, x = oddly_set_up(), images(4)
    y = torch.arange(4)
    np.random.seed(4)
    random.seed(4)
    before = surroundings(model), x.clone(), y.clone()
    x_adv = attack(name, model, x, y, LINF, rng(4))
    assert_same(before, (surroundings(model), x, y))
    assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("name", ["ProjectedGradientDescent", "DeepFool", "SquareAttack"])
@pytest.mark.parametrize("call", [1, 3, 5])
def test_nothing_is_touched_after_an_error_either(name: str, call: int, rng: RNG) -> None:
    model, x = oddly_set_up(), images(4)
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) == call:
            raise RuntimeError("in the middle")

    model.register_forward_hook(fail)
    before = surroundings(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        attack(name, model, x, torch.full((4,), 3), LINF, rng(4))
    assert_same(before, surroundings(model))


def test_a_budget_of_zero_does_nothing(rng: RNG) -> None:
    x = images(3)
    none = Threat(Fraction(0))
    assert torch.equal(attack("SquareAttack", smooth_net(), x, torch.zeros(3).long(), none, rng(3)), x)


def test_a_targeted_attack_gets_the_likeliest_wrong_class(rng: RNG) -> None:
    model, x = linear_net(), 0.15 + 0.7 * images(8)
    logits = model(x).detach()
    likeliest = logits.topk(2, dim=1).indices
    threat = Threat(Fraction(1), low=-1.0, high=2.0)
    x_adv = art(model, x, likeliest[:, 0], threat, rng=rng(8), name="SaliencyMapMethod", theta=0.5)
    assert torch.equal(predicted(model, x_adv), likeliest[:, 1])
    assert set(TARGETED_ONLY) <= set(names())


def test_more_draws_average_the_gradient_of_a_noisy_network(rng: RNG) -> None:
    model, x = spiking_net(NOISY), images(8)
    y = predicted(model, x)
    seen: list[int] = []
    model.register_forward_hook(lambda *_: seen.append(1))  # type: ignore[arg-type, return-value]

    def forwards(draws: int) -> int:
        seen.clear()
        with estimating(model, None, draws):
            attack("ProjectedGradientDescent", model, x, y, LINF, rng(8))
        return len(seen)

    assert forwards(6) - forwards(1) == 5 * 5


def test_attacks_of_one_image_get_one_at_a_time(rng: RNG) -> None:
    model, x = smooth_net(), images(3)
    y = predicted(model, x)
    x_adv = art(model, x, y, LINF, rng=rng(3), name="ShadowAttack", nb_steps=2, batch_size=4)
    assert inside(x, x_adv, LINF) and not torch.equal(x, x_adv)
    x_adv = art(model, x, y, LINF, rng=rng(3), name="SimBA", max_iter=20, epsilon=0.06, attack="px")
    assert inside(x, x_adv, LINF) and not torch.equal(x, x_adv)


@pytest.mark.parametrize(
    ("name", "per_eps"), [("ProjectedGradientDescentNumpy", 51 / 160), ("AutoConjugateGradient", 2)]
)
@BOTH
def test_what_the_user_leaves_open_comes_from_the_threat_model(
    name: str, per_eps: float, threat: Threat, rng: RNG, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def generate(self: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        seen.update({key: getattr(self, key) for key in ("norm", "eps", "eps_step", "batch_size", "verbose")})
        whole = self.estimator.loss_gradient(x, y)
        alone = [self.estimator.loss_gradient(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
        assert np.allclose(whole, np.concatenate(alone), atol=1e-6) and np.abs(whole).max() > 0.1
        return x

    monkeypatch.setattr(getattr(evasion, name), "generate", generate)
    model, x = smooth_net(), images(5)
    art(model, x, torch.arange(5) % 4, threat, rng=rng(5), name=name)
    eps = float(threat.eps)
    norm = np.inf if threat.norm == "linf" else 2
    assert seen == {"norm": norm, "eps": eps, "eps_step": eps * per_eps, "batch_size": 5, "verbose": False}
    art(model, x, torch.arange(5) % 4, threat, rng=rng(5), name=name, eps=0.01, batch_size=2)
    assert seen["eps"] == 0.01 and seen["eps_step"] == 0.01 * per_eps and seen["batch_size"] == 2


def test_parameters_are_read_as_what_they_are() -> None:
    assert settle("DeepFool", {"max_iter": "50", "epsilon": "1e-3"}) == {
        "name": "DeepFool",
        "max_iter": 50,
        "epsilon": 0.001,
    }
    given = {"norm": "inf", "minimal": "True", "eps": "2"}
    settled = {"name": "FastGradientMethod", "norm": "inf", "minimal": True, "eps": 2.0}
    assert settle("FastGradientMethod", given) == settled
    assert settle("AutoProjectedGradientDescent", {"loss_type": "cross_entropy"})["loss_type"] == "cross_entropy"
    assert settle("SquareAttack", {"norm": "2"})["norm"] == 2


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("DeepFol", {}, "no evasion attack 'DeepFol'.* art:DeepFool"),
        ("deepfool", {}, "for example art:DeepFool"),
        ("", {}, "write art:NAME, for example art:"),
        ("EvasionAttack", {}, "no evasion attack"),
        ("DeepFool", {"steps": "3"}, "no parameter 'steps'; it has max_iter, epsilon, nb_grads, batch_size, verbose"),
        ("FastGradientMethod", {"targeted": "true"}, "no parameter 'targeted'"),
        ("DeepFool", {"max_iter": "many"}, "max_iter=many is not an integer"),
        ("DeepFool", {"max_iter": "2.5"}, "max_iter=2.5 is not an integer"),
        ("DeepFool", {"epsilon": "nan"}, "epsilon=nan is not a finite number"),
        ("FastGradientMethod", {"minimal": "1"}, "minimal=1 is not true or false"),
        ("DeepFool", {"max_iter": "-3"}, "DeepFool refuses: .*iterations must be a positive"),
        ("SquareAttack", {"norm": "7"}, "SquareAttack refuses: "),
        ("DPatch", {}, "DPatch refuses: DPatch requires an estimator"),
        ("GRAPHITEBlackbox", {}, "needs noise_size, net_size"),
        ("AdversarialPatchNumpy", {}, "makes a patch"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(name: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        settle(name, given)
    assert "\n" not in str(error.value)


def test_settling_touches_no_generator() -> None:
    before = surroundings(nn.Identity())
    settle("SquareAttack", {})
    assert_same(before, surroundings(nn.Identity()))


def test_the_harness_is_told_what_it_must_know() -> None:
    assert ART.own_batches and not ART.deterministic_only
    assert ART.settle is settle and ART.backend is backend
    assert backend().startswith("adversarial-robustness-toolbox 1.")
