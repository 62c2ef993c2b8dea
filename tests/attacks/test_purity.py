"""An attack leaves nothing behind, stays inside the ball, and a sample's result depends on that sample alone."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks import Threat
from attacks.apgd import apgd
from attacks.fgsm import clean, fgsm, rfgsm
from attacks.mtpgd import mtpgd
from attacks.pgd import pgd
from attacks.sapgd import sapgd
from attacks.square import square
from models.neurons import NeuronSpec
from models.random import CounterRNG, noise_stream

# x + 8/63 is not representable: a projection that rounds carelessly leaves the l_inf ball.
LINF, L2 = Threat(Fraction(8, 63)), Threat(Fraction(1, 2), "l2")
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
ATTACKS: dict[str, Any] = {
    "clean": partial(clean, threat=LINF),
    "fgsm": partial(fgsm, threat=LINF),
    "fgsm-l2": partial(fgsm, threat=L2),
    "rfgsm": partial(rfgsm, threat=LINF),
    "pgd": lambda model, x, y, rng: pgd(model, x, y, LINF, steps=4, alpha=0.03, rng=rng)[4].last,
    "pgd-margin-l2": lambda model, x, y, rng: pgd(model, x, y, L2, steps=4, alpha=0.2, rng=rng, loss="margin")[4].best,
    "apgd": lambda model, x, y, rng: apgd(model, x, y, LINF, steps=5, rng=rng)[5].last,
    "apgd-dlr-l2": lambda model, x, y, rng: apgd(model, x, y, L2, steps=5, rng=rng, loss="dlr")[5].last,
    "sapgd": lambda model, x, y, rng: sapgd(model, x, y, LINF, steps=5, rng=rng)[5].last,
    "mtpgd": lambda model, x, y, rng: mtpgd(model, x, y, LINF, steps=2, alpha=0.05, rng=rng)[2].last,
    "mtpgd-l2": lambda model, x, y, rng: mtpgd(model, x, y, L2, steps=2, alpha=0.2, rng=rng, targets=2)[2].last,
    "square": lambda model, x, y, rng: square(model, x, y, LINF, steps=8, rng=rng)[8].last,
}
NAMES = pytest.mark.parametrize("name", ATTACKS)
RNG = Callable[..., CounterRNG]


def state_of(model: nn.Module) -> list[object]:
    """Everything about a model that an attack must not touch."""
    return [
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        torch.get_rng_state(),
    ]


def assert_same(before: object, after: object) -> None:
    if isinstance(before, Tensor):
        assert isinstance(after, Tensor)
        assert torch.equal(before, after)
    elif isinstance(before, list | tuple):
        assert isinstance(after, list | tuple)
        for a, b in zip(before, after, strict=True):
            assert_same(a, b)
    elif isinstance(before, dict):
        assert isinstance(after, dict)
        assert_same(list(before.items()), list(after.items()))
    else:
        assert before == after


def oddly_set_up() -> nn.Module:
    """A network in train mode with one layer in eval mode, one frozen weight and one gradient."""
    model = spiking_net().train()
    model.stem[1].eval()  # type: ignore[index]
    model.readout.bias.requires_grad_(False)
    model.readout.weight.grad = torch.ones_like(model.readout.weight)
    return model


@NAMES
def test_model_inputs_and_generator_are_untouched(name: str, rng: RNG) -> None:
    model, x, y = oddly_set_up(), images(5), labels(5)
    before = state_of(model), x.clone(), y.clone(), torch.is_grad_enabled()
    x_adv = ATTACKS[name](model, x, y, rng=rng(5))
    assert_same(before, (state_of(model), x, y, torch.is_grad_enabled()))
    assert not x_adv.requires_grad
    assert x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "clean"])
def test_they_are_untouched_after_an_error_too(name: str, rng: RNG) -> None:
    model, calls = oddly_set_up(), []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) == (3 if "pgd" in name else 1):
            raise RuntimeError("in the middle")

    model.readout.register_forward_hook(fail)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        ATTACKS[name](model, images(5), labels(5), rng=rng(5))
    assert_same(before, state_of(model))


@NAMES
def test_an_attack_repeats_itself(name: str, rng: RNG) -> None:
    model, x, y = spiking_net(), images(5), labels(5)
    assert torch.equal(ATTACKS[name](model, x, y, rng=rng(5)), ATTACKS[name](model, x, y, rng=rng(5)))


@NAMES
@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(7)), cut=st.integers(1, 6))
def test_neither_batch_size_nor_order_matters(name: str, neuron: NeuronSpec, order: list[int], cut: int) -> None:
    # In float64: float32 convolutions of different batch sizes round differently, and a spike is a step.
    model = spiking_net(neuron, dtype=torch.float64)
    x, y = images(7, dtype=torch.float64), labels(7)

    def attack(index: Tensor) -> Tensor:
        with noise_stream(model, 11, index):
            return ATTACKS[name](model, x[index], y[index], rng=CounterRNG(5, index))  # type: ignore[no-any-return]

    whole = attack(torch.arange(7))
    shuffled = torch.tensor(order)
    parts = torch.cat([attack(shuffled[:cut]), attack(shuffled[cut:])])
    assert torch.allclose(parts, whole[shuffled], rtol=0, atol=1e-9)
    assert name == "clean" or not torch.equal(whole, x)


def assert_inside(x_adv: Tensor, x: Tensor, name: str) -> None:
    wide, delta = x_adv.double(), (x_adv.double() - x.double()).flatten(1)
    assert float(wide.min()) >= 0
    assert float(wide.max()) <= 1
    if "l2" in name:
        assert float(delta.norm(dim=1).max()) <= float(L2.eps)
    else:
        assert float(delta.abs().max()) <= float(LINF.eps)


@NAMES
def test_proposals_lie_in_the_ball_in_float64(name: str, rng: RNG) -> None:
    x = images(16)
    assert_inside(ATTACKS[name](spiking_net(), x, labels(16), rng=rng(16)), x, name)


class Flat(nn.Module):
    """The same logits, tied, everywhere: gradients exist and are 0."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1).sum(1, keepdim=True) + torch.tensor([1.0, 1.0, 0.0, 0.0]).to(x)


@NAMES
@pytest.mark.parametrize("label", [0, 2])
def test_zero_gradients_and_ties_make_no_nan(name: str, label: int, rng: RNG) -> None:
    x = images(6)
    assert_inside(ATTACKS[name](Flat(), x, torch.full((6,), label), rng=rng(6)), x, name)
