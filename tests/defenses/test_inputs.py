"""Adversarial training trains on points of the ball that are worse than the images; noisy neurons are a value."""

from fractions import Fraction

import torch
from support import images, labels, spiking_net

from attacks.losses import cross_entropy
from defenses import Setting
from defenses.at import AdversarialInputs, at
from defenses.nlif import NoisyNeurons, nlif
from models import NeuronSpec
from models.random import CounterRNG

EPS = Fraction(8, 255)


def test_training_images_lie_in_the_ball_and_hurt() -> None:
    model, x, y = spiking_net().train(), images(32), labels(32)
    part = AdversarialInputs(EPS)
    x_adv = part.perturb(model, x, y, CounterRNG(0, torch.arange(32)))
    assert float((x_adv.double() - x.double()).abs().max()) <= float(EPS)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    model.eval()
    with torch.no_grad():
        harder = cross_entropy(model(x_adv), y) > cross_entropy(model(x), y)
    assert float(harder.double().mean()) > 0.9


def test_they_are_crafted_in_eval_mode_and_the_network_keeps_its_statistics() -> None:
    model, x, y = spiking_net().train(), images(8), labels(8)
    seen: list[bool] = []
    model.readout.register_forward_hook(lambda module, *_: seen.append(module.training))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    AdversarialInputs(EPS, steps=3).perturb(model, x, y, CounterRNG(0, torch.arange(8)))
    assert seen == [False] * 3
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_two_steps_of_half_the_budget_by_default() -> None:
    (part,) = at().settled(Setting("wrn16-4", Fraction(2, 255))).parts
    assert isinstance(part, AdversarialInputs)
    assert (part.eps, part.steps) == (Fraction(2, 255), 2)
    (own,) = at(eps=EPS).settled(Setting("wrn16-4", Fraction(2, 255))).parts
    assert isinstance(own, AdversarialInputs)
    assert own.eps == EPS


def test_noisy_neurons_replace_the_kind_and_keep_the_rest() -> None:
    spec = nlif(0.16).neuron(NeuronSpec(decay=0.9, surrogate="arctan:alpha=3"))
    assert spec == NeuronSpec("nlif", 0.9, surrogate="arctan:alpha=3", params=(("noise_var", 0.16),))
    assert NoisyNeurons().noise_var == 0.4
