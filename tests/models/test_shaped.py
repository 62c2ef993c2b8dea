"""Neurons whose constants are tensors, learnt or adapting: one recursion whichever way it is run."""

import copy

import pytest
import torch
from support import images, labels
from torch import Tensor, nn
from torch.nn import functional

from attacks.gradients import estimating, frozen, input_gradient
from attacks.gradients.names import read_gradient
from attacks.losses import cross_entropy
from bench.registry import GRADIENTS
from models.cnn import cnn_small
from models.lif import LIFParams, lif
from models.neurons import LIF, spiking_layers
from models.shaped import ShapedLIF, settle_shapes
from models.surrogates import Triangular


class OwnLeak(ShapedLIF):
    """A leak for each step and neuron."""

    def initial(self, steps: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"leak": torch.full((steps, *shape), self.decay)}

    def constants(self, current: Tensor) -> LIFParams:
        return self.params._replace(decay=self.leak)


def network(kind: type[LIF], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = cnn_small(num_classes=10, in_shape=(1, 8, 8), T=3, neuron=kind, mean=(0.3,), std=(0.4,))
    settle_shapes(net, (1, 8, 8), 3, frames=False)
    with torch.no_grad():
        # Until normalisation knows its inputs, deep layers are silent.
        for _ in range(30):
            net(images(32))
    return net


def test_equal_constants_give_the_plain_neuron() -> None:
    plain, own = network(LIF).eval(), network(OwnLeak).eval()
    x, y = images(6), labels(6)
    assert torch.equal(plain(x), own(x))
    with frozen(plain), frozen(own):
        one, two = (input_gradient(net, x, y, cross_entropy).grad for net in (plain, own))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_settling_shapes_leaves_the_rest_alone() -> None:
    torch.manual_seed(0)
    net = cnn_small(num_classes=10, in_shape=(1, 8, 8), T=3, neuron=OwnLeak, mean=(0.3,), std=(0.4,))
    before = copy.deepcopy(net.state_dict())
    settle_shapes(net, (1, 8, 8), 3, frames=False)
    after = net.state_dict()
    assert net.training and all(torch.equal(after[name], value) for name, value in before.items())
    assert len(after) == len(before) + len(spiking_layers(net))
    net.T = 4
    with pytest.raises(ValueError, match="3 steps"):
        net(images(2))


@pytest.mark.parametrize("gradient", ["triangular:gamma=2", "bptr", "rga", "hart", "assg", "pdsg", "conversion"])
def test_every_gradient_differentiates_it(gradient: str) -> None:
    net, x, y = network(OwnLeak).eval(), images(4), labels(4)
    with torch.no_grad():
        for layer in spiking_layers(net).values():
            layer.leak.uniform_(0.1, 1)
    logits = net(x).detach()
    way = read_gradient(gradient, GRADIENTS.get(gradient.partition(":")[0]))
    with frozen(net), estimating(net, way):
        at = input_gradient(net, x, y, cross_entropy)
    torch.testing.assert_close(at.logits, logits)
    assert at.grad.isfinite().all() and at.grad.abs().sum() > 0


def test_written_out_and_analytic_gradients_agree_for_tensors() -> None:
    torch.manual_seed(1)
    layer = OwnLeak(decay=0.7).double()
    current = torch.randn(4, 3, 5, dtype=torch.float64).mul_(1.5)
    layer(current)
    layer.leak.data = torch.rand(4, 5, dtype=torch.float64)
    weights = torch.randn(4, 3, 5, dtype=torch.float64)
    grads = []
    for learns in (True, False):
        layer.leak.requires_grad_(learns)
        x = current.clone().requires_grad_()
        (layer(x) * weights).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)
    assert layer.leak.grad is not None


def test_thresholds_may_be_tensors() -> None:
    torch.manual_seed(2)
    current = torch.randn(4, 3, 5, dtype=torch.float64).mul_(1.5)
    thresholds = torch.full((4, 3, 5), 1.0, dtype=torch.float64)
    one, two = (
        lif(current, LIFParams(0.5, threshold, 0.0, False, Triangular()), with_membrane=True)
        for threshold in (1.0, thresholds)
    )
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    high = lif(current, LIFParams(0.5, thresholds * 100, 0.0, False, Triangular()))[0]
    assert not high.any()


def test_the_leak_is_trained() -> None:
    net, x, y = network(OwnLeak), images(8), labels(8)
    functional.cross_entropy(net(x), y).backward()
    assert all(layer.leak.grad is not None and layer.leak.grad.any() for layer in spiking_layers(net).values())
