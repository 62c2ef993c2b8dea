"""Defenses that change the neuron: what they do to it while it is trained."""

from pathlib import Path

import pytest
import torch
from support import images, spiking_net
from torch import nn

from bench.data import Dataset, load_dataset
from bench.resolve import parse_defense
from bench.spec import ModelSpec, Recipe, TrainSpec
from bench.training import load_trained, train
from defenses import Setting, Step
from defenses.hosnn import Homeostasis, remember
from defenses.stog import StochasticGates
from models import CounterRNG, NeuronSpec, record_membrane
from models.gates import GatedLIF
from models.homeostatic import HomeostaticLIF
from models.neurons import spiking_layers
from models.shaped import settle_shapes

CPU = torch.device("cpu")


def network(kind: str) -> nn.Module:
    model = spiking_net(NeuronSpec(kind))
    settle_shapes(model, (1, 8, 8), 2, frames=False)
    return model.train()


def step_of(model: nn.Module, progress: float) -> Step:
    x = images(8)
    y = torch.zeros(8, dtype=torch.long)
    return Step(model, x, y, model(x), {}, progress, x, CounterRNG(0, torch.arange(8)))


def test_a_prior_closes_gates_in_the_first_half_and_leaves_them_in_the_second() -> None:
    model, part = network("stog"), StochasticGates(gamma=0.02)
    layers = [layer for layer in spiking_layers(model).values() if isinstance(layer, GatedLIF)]
    assert layers
    part.before_epoch(model, 0.0)
    penalty = part.penalty(step_of(model, 0.0))
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(0.01 * sum(layer.theta.numel() for layer in layers))
    penalty.backward()
    for layer in layers:
        torch.testing.assert_close(layer.theta.grad, 0.02 * layer.theta.detach())
        layer.theta.grad = None
    part.before_epoch(model, 0.5)
    assert part.penalty(step_of(model, 0.5)) is None
    model(images(8)).sum().backward()
    assert all(layer.theta.grad is None for layer in layers)
    part.before_epoch(model, 0.4)
    assert all(layer.theta.requires_grad for layer in layers)


def test_trajectories_are_means_over_the_clean_images_of_the_last_plain_epoch() -> None:
    model, part = network("hosnn"), Homeostasis()
    layers = [layer for layer in spiking_layers(model).values() if isinstance(layer, HomeostaticLIF)]
    with pytest.raises(ValueError, match="give it 2"):
        part.before_epoch(model, 1.0)
    part.before_epoch(model, 0.0)
    remember(model, 1 - images(4))
    part.before_epoch(model, 0.4)
    statistics = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    remember(model, images(5))
    remember(model, images(3, seed=7))
    assert model.training
    assert all(torch.equal(model.state_dict()[name], value) for name, value in statistics.items())
    part.before_epoch(model, 0.6)
    for layer in layers:
        assert layer.adapting == 1 and layer.seen == 8
        layer.adapting.zero_()
    model.eval()
    with torch.no_grad(), record_membrane(model) as membrane:
        model(torch.cat([images(5), images(3, seed=7)]))
    for layer, v in zip(layers, membrane.values(), strict=True):
        torch.testing.assert_close(layer.reference_potential, v.mean(1))
        assert v.any()
    part.penalty(step_of(model, 0.6))
    assert all(layer.seen == 8 for layer in layers)
    part.penalty(step_of(model, 0.4))
    assert all(layer.seen == 16 for layer in layers)


def test_theta_stays_positive() -> None:
    model, part = network("hosnn"), Homeostasis()
    layers = [layer for layer in spiking_layers(model).values() if isinstance(layer, HomeostaticLIF)]
    for layer in layers:
        assert float(layer.theta.min()) == pytest.approx(0.2)
        layer.theta.data.fill_(-1)
    part.after_update(model, 0)
    assert all(not layer.theta.any() for layer in layers)


@pytest.fixture(scope="module")
def data(tiny_npz: Path) -> Dataset:
    return load_dataset(str(tiny_npz), Path())


@pytest.mark.parametrize("name", ["stog", "dlif+mppd", "el", "hosnn", "hosnn+mppd+at", "stog+rat"])
def test_it_learns_and_its_checkpoint_is_the_network(data: Dataset, tmp_path: Path, name: str) -> None:
    defense = parse_defense(name).settled(Setting("cnn-small", data.protocol.train_eps, eps=data.protocol.eps))
    model = ModelSpec(
        "cnn-small", data.num_classes, data.in_shape, 2, defense.neuron(NeuronSpec()), data.mean, data.std
    )
    recipe = Recipe(epochs=6, batch_size=16, holdout=9)
    defenses = tuple(defense.identity())
    spec = TrainSpec(model, recipe, defenses, data.train_hash, 0, data.protocol.eps, name, data.name)
    trained = train(spec, defense, data, tmp_path, device=CPU)
    assert trained.log[-1].loss < 0.5 * trained.log[0].loss
    x = data.pixels(data.x_test, CPU)
    loaded = load_trained(spec, tmp_path, CPU)
    assert loaded is not None and loaded.weights_sha256 == trained.weights_sha256
    with torch.no_grad():
        torch.manual_seed(0)
        logits = trained.model(x)
        torch.manual_seed(0)
        assert torch.equal(loaded.model(x), logits)
    assert (logits.argmax(1) == data.y_test).double().mean() > 0.9
