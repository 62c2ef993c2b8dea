"""The small perceptron: shapes, and the same network written as plain equations."""

import pytest
import torch
from torch import nn

from models.lif import LIFParams, lif_reference
from models.neurons import NeuronSpec
from models.surrogates import Triangular
from models.tiny import SpikingMLP, tiny, tiny_wide


def network(widths: tuple[int, ...] = (5, 4), T: int = 3) -> SpikingMLP:
    torch.manual_seed(0)
    model = SpikingMLP(3, (2, 2, 2), widths, NeuronSpec().build, T=T, mean=(0.3, 0.4), std=(0.2, 0.3)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 1, 3)
            nn.init.uniform_(module.bias, -1, 1)
    return model.eval()


def test_it_computes_its_equations() -> None:
    model = network()
    x = torch.rand(6, 2, 2, 2, dtype=torch.float64)
    params = LIFParams(0.5, 1.0, 0.0, False, Triangular())
    flat = ((x - model.mean) / model.std).flatten(1)
    _, linear, norm = model.stem
    current = norm(linear(flat)).expand(3, -1, -1)
    spikes, _ = lif_reference(current, params)
    linear, norm = model.hidden[0]
    spikes, _ = lif_reference(torch.stack([norm(linear(s)) for s in spikes]), params)
    assert 0 < float(spikes.detach().mean()) < 1
    assert torch.allclose(model(x), torch.stack([model.readout(s) for s in spikes]).mean(0))


def test_frames_that_repeat_an_image_are_that_image() -> None:
    model = network()
    x = torch.rand(4, 2, 2, 2, dtype=torch.float64)
    assert torch.allclose(model(x), model(x[:, None].expand(-1, 3, -1, -1, -1)))


@pytest.mark.parametrize(("build", "widths"), [(tiny, (12, 16)), (tiny_wide, (24, 16))])
def test_the_registered_sizes(build: type[SpikingMLP], widths: tuple[int, int]) -> None:
    model = build(10, (1, 4, 4), NeuronSpec().build, T=4, mean=(0.5,), std=(0.5,))
    assert (model.stem[1].weight.shape, model.readout.weight.shape) == ((widths[0], 16), (10, widths[1]))
    assert [layer.layer for layer in model.neurons] == [0, 1]


@pytest.mark.parametrize("widths", [(), (4, 0)])
def test_a_layer_without_neurons_is_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one neuron"):
        SpikingMLP(3, (1, 2, 2), widths, NeuronSpec().build, T=2, mean=(0.5,), std=(0.5,))
