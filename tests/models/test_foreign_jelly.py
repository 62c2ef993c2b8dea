"""SpikingJelly's networks compute what their library computes, forwards and backwards, and keep nothing."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign_networks import excited, jelly
from hypothesis import given, settings
from hypothesis import strategies as st
from support import images
from torch import Tensor, nn

from attacks.gradients import estimating, parse_gradient
from bench.evidence.probe import recording_currents, traces
from models.foreign import Adapted, adapted
from models.foreign.layer import ForeignLayer, WholeLayer
from models.neurons import spiking_layers, using_surrogate
from models.surrogates import ArcTan, Sigmoid, Surrogate

pytest.importorskip("spikingjelly")

from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import parametric_lif_net, spiking_resnet, spiking_vgg

NEURONS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "if": (neuron.IFNode, {}),
    "lif": (neuron.LIFNode, {}),
    "lif, input not decayed": (neuron.LIFNode, {"decay_input": False, "v_reset": -0.2, "v_threshold": 0.7}),
    "lif, reset detached": (neuron.LIFNode, {"detach_reset": True, "tau": 1.5}),
    "plif": (neuron.ParametricLIFNode, {"init_tau": 3.0}),
    "soft reset": (neuron.LIFNode, {"v_reset": None}),
    "klif": (neuron.KLIFNode, {}),
}
WHOLE = ("if", "lif", "lif, input not decayed", "lif, reset detached", "plif")
WEIGHTS = torch.arange(10.0)
every = pytest.mark.parametrize(("name", "mode"), [*itertools.product(NEURONS, "ms")])


def network(name: str, mode: str, spikes: nn.Module | None = None, **options: Any) -> nn.Module:
    kind, arguments = NEURONS[name]
    given = {"surrogate_function": spikes} if spikes is not None else {}
    return jelly(lambda: kind(**arguments, **given), mode, **options)


def library_s(net: nn.Module, x: Tensor) -> Tensor:
    """What the library computes after its own reset."""
    functional.reset_net(net)
    out: Tensor = net(x)
    return out


def gradient(of: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = of(x)
    (grad,) = torch.autograd.grad((out * WEIGHTS).sum(), x)
    return out.detach(), grad


@every
def test_logits_and_gradient_are_the_library_s_to_the_bit(name: str, mode: str) -> None:
    x = images(6)
    expected, slope = gradient(lambda x: library_s(network(name, mode), x), x)
    assert expected.abs().sum() > 0
    assert slope.abs().sum() > 0
    model = adapted(network(name, mode), (1, 8, 8), 9)
    assert isinstance(model, Adapted)
    assert (model.way, model.T) == ("image", 4)
    for _ in range(2):
        found, grad = gradient(model, x)
        assert torch.equal(found, expected)
        assert torch.equal(grad, slope)


@every
@pytest.mark.parametrize(("ours", "its"), [(ArcTan(4.0), surrogate.ATan(4.0)), (Sigmoid(3.0), surrogate.Sigmoid(3.0))])
def test_another_surrogate_is_the_network_built_with_it(name: str, mode: str, ours: Surrogate, its: nn.Module) -> None:
    x = images(6)
    expected, slope = gradient(lambda x: library_s(network(name, mode, its), x), x)
    model = adapted(network(name, mode), (1, 8, 8), 4)
    with using_surrogate(model, ours):
        found, grad = gradient(model, x)
    assert torch.equal(found, expected)
    torch.testing.assert_close(grad, slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max()))
    own = gradient(model, x)[1]
    assert not torch.allclose(own, slope, rtol=1e-2)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_an_image_s_logits_depend_on_nothing_else(first: int, second: int, seed: int) -> None:
    model = adapted(network("lif", "s"), (1, 8, 8), 4)
    x = images(first + second, seed=seed)
    whole = model(x)
    torch.testing.assert_close(torch.cat([model(x[:first]), model(x[first:])]), whole)
    assert torch.equal(model(x), whole)


@every
def test_no_state_is_left_even_by_a_pass_that_broke_off(name: str, mode: str) -> None:
    net = network(name, mode)
    model = adapted(net, (1, 8, 8), 4)
    expected = model(images(3))

    def stop(*_: object) -> None:
        raise RuntimeError("stop")

    hook = net.body[5].register_forward_hook(stop)
    with pytest.raises(RuntimeError, match="stop"):
        model(images(2, seed=5))
    hook.remove()
    for module in net.modules():
        if isinstance(module, neuron.BaseNode):
            assert not any(isinstance(value, Tensor) for value in module.memories())
    assert torch.equal(model(images(3)), expected)


@every
def test_a_network_comes_back_as_it_was(name: str, mode: str) -> None:
    net = network(name, mode)
    before, modules = str(net), [name for name, _ in net.named_modules()]
    net.train()
    model = adapted(net, (1, 8, 8), 4)
    assert all(module.training for module in net.modules() if not isinstance(module, ForeignLayer))
    assert isinstance(model, Adapted)
    assert set(model.state_dict()) == {f"net.{name}" for name in net.state_dict()}
    model.detach()
    assert (str(net), [name for name, _ in net.named_modules()]) == (before, modules)
    assert not [module for module in net.modules() if "forward" in vars(module)]


@every
def test_gradients_of_whole_trains_work_where_the_train_is_known(name: str, mode: str) -> None:
    x, model = images(6), adapted(network(name, mode), (1, 8, 8), 4)
    expected = model(x)
    whole = mode == "m" and name in WHOLE
    assert {type(layer) for layer in spiking_layers(model).values()} == {WholeLayer if whole else ForeignLayer}
    for text in ("bptr", "rga", "hart", "assg", "pdsg", "conversion", "noiseless"):
        if not whole:
            with pytest.raises(ValueError, match="called step by step"), estimating(model, parse_gradient(text)):
                pass
            continue
        with estimating(model, parse_gradient(text)):
            found, grad = gradient(model, x)
        assert grad.abs().sum() > 0, text
        assert torch.equal(found, expected) or text in ("conversion", "noiseless")


@every
def test_what_is_watched_is_what_happens(name: str, mode: str) -> None:
    x, net = images(6), network(name, mode)
    model = adapted(net, (1, 8, 8), 4)
    seen: list[Tensor] = []
    hook = net.body[2].register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    expected = model(x)
    hook.remove()
    found = traces(model, x)
    assert list(found) == list(spiking_layers(model))
    spikes = next(iter(found.values())).spikes
    assert torch.equal(spikes, seen[0] if mode == "m" else torch.stack(seen))
    for layer_name, trace in found.items():
        assert trace.spikes.shape[0] == 4
        fires = trace.potential >= spiking_layers(model)[layer_name].v_threshold
        assert (fires == (trace.spikes > 0)).double().mean() > 0.999
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("mode", ["m", "s"])
def test_gradients_in_the_currents_are_there_however_the_neuron_is_called(mode: str) -> None:
    x, model = images(6), adapted(network("lif", mode), (1, 8, 8), 4)
    with recording_currents(model) as currents:
        out = model(x.requires_grad_())
    grads = torch.autograd.grad((out * WEIGHTS).sum(), list(currents.values()))
    other = adapted(network("lif", "m"), (1, 8, 8), 4)
    with recording_currents(other) as its:
        out = other(x)
    expected = torch.autograd.grad((out * WEIGHTS).sum(), list(its.values()))
    scales = [0.5 if mode == "s" else 1.0] * 2
    for grad, wanted, scale in zip(grads, expected, scales, strict=True):
        assert grad.abs().sum() > 0
        # A whole layer's current is what enters the potential, the decayed input.
        torch.testing.assert_close(grad, wanted * scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "way"), [("m", "sequence"), ("s", "step")])
def test_a_network_without_a_loop_is_shown_the_image_several_times(mode: str, way: str) -> None:
    model = adapted(network("lif", mode, loops=False), (1, 8, 8), 4)
    assert isinstance(model, Adapted)
    assert (model.way, model.T) == (way, 4)
    assert torch.equal(model(images(6)), library_s(network("lif", mode), images(6)))


def test_a_network_that_takes_the_batch_for_time_is_given_time() -> None:
    net = nn.Sequential(nn.Flatten(-3), nn.Linear(64, 10), neuron.IFNode(step_mode="m"))
    model = adapted(excited(net, 5.0), (1, 8, 8), 4)
    assert isinstance(model, Adapted)
    assert model.way == "sequence"


def test_frames_are_given_one_after_the_other() -> None:
    frames = torch.rand(5, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for mode in "ms":
        model = adapted(network("lif", mode, loops=False), (1, 8, 8), 3, frames=True)
        steps = library_s(network("lif", "m", loops=False), frames.transpose(0, 1))
        torch.testing.assert_close(model(frames), steps.mean(0))


@pytest.mark.parametrize("which", ["vgg", "resnet", "plif net"])
def test_the_library_s_reference_networks(which: str) -> None:
    torch.manual_seed(0)
    if which == "vgg":
        net, shape = spiking_vgg.spiking_vgg11_bn(
            spiking_neuron=neuron.LIFNode, surrogate_function=surrogate.ATan(), num_classes=10
        ), (3, 32, 32)  # fmt: skip
    elif which == "resnet":
        net, shape = spiking_resnet.spiking_resnet18(
            spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(), num_classes=10
        ), (3, 32, 32)  # fmt: skip
    else:
        net, shape = parametric_lif_net.MNISTNet(
            4, neuron.ParametricLIFNode, surrogate_function=surrogate.ATan()
        ), (1, 28, 28)  # fmt: skip
    functional.set_step_mode(net, "m")
    excited(net, 3.0)
    x = images(2, *shape)
    functional.reset_net(net)
    expected = net(x.unsqueeze(0).expand(2, *x.shape)).mean(0)
    model = adapted(net, shape, 2)
    assert torch.equal(model(x), expected)
    assert torch.equal(model(x), expected)
    assert all(isinstance(layer, WholeLayer) for layer in spiking_layers(model).values())
    with using_surrogate(model, ArcTan(2.0)):
        out, grad = gradient(model, x)
    assert torch.equal(out, expected)
    assert grad.abs().sum() > 0
    torch.testing.assert_close(grad, gradient(model, x)[1], rtol=1e-3, atol=1e-4 * float(grad.abs().max()))


def test_a_network_that_cannot_be_shown_an_image_says_how_it_was_tried() -> None:
    net = nn.Sequential(layer.Conv2d(3, 4, 3), neuron.IFNode())
    with pytest.raises(ValueError, match=r"cannot be shown images.*as image: .*as sequence: "):
        adapted(net, (1, 8, 8), 4)
