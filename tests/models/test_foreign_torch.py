"""snnTorch's networks compute what their library computes, forwards and backwards, and keep nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign_networks import excited, torched
from support import images
from torch import Tensor, nn

from bench.evidence.probe import recording_currents, traces
from models.foreign import Adapted, adapted
from models.foreign.net import logits_of
from models.neurons import spiking_layers, using_surrogate
from models.surrogates import ArcTan, Sigmoid, Surrogate

snn = pytest.importorskip("snntorch")

from snntorch import surrogate, utils  # noqa: E402

WEIGHTS = torch.arange(10.0)
NEURONS: dict[str, Callable[..., nn.Module]] = {
    "leaky": lambda **more: snn.Leaky(beta=0.9, **more),
    "leaky to zero": lambda **more: snn.Leaky(beta=0.5, threshold=0.5, reset_mechanism="zero", **more),
    "leaky at once": lambda **more: snn.Leaky(beta=0.7, reset_delay=False, **more),
    "thresholds": lambda **more: snn.Leaky(beta=0.7, threshold=torch.tensor(0.8), learn_threshold=True, **more),
    "synaptic": lambda **more: snn.Synaptic(alpha=0.6, beta=0.7, **more),
    "lapicque": lambda **more: snn.Lapicque(beta=0.5, **more),
}
every = pytest.mark.parametrize("name", NEURONS)


def gradient(of: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = of(x)
    (grad,) = torch.autograd.grad((out * WEIGHTS).sum(), x)
    return out.detach(), grad


def spikes_of(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: net(x)[0].mean(0)


@every
def test_logits_and_gradient_are_the_library_s_to_the_bit(name: str) -> None:
    x, net = images(6), torched(NEURONS[name])
    expected, slope = gradient(spikes_of(net), x)
    assert expected.abs().sum() > 0
    model = adapted(net, (1, 8, 8), 9)
    assert isinstance(model, Adapted)
    assert (model.way, model.T) == ("image", 5)
    for _ in range(2):
        found, grad = gradient(model, x)
        assert torch.equal(found, expected)
        assert torch.equal(grad, slope)
    torch.testing.assert_close(torch.cat([model(x[:2]), model(x[2:])]), expected)
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron):
            assert module.mem.numel() == 0
            assert "reset" not in vars(module)


@every
@pytest.mark.parametrize(
    ("ours", "its"), [(ArcTan(4.0), lambda: surrogate.atan(4.0)), (Sigmoid(2.0), lambda: surrogate.sigmoid(2))]
)
def test_another_surrogate_is_the_network_built_with_it(name: str, ours: Surrogate, its: Callable[[], Any]) -> None:
    x = images(6)
    expected, slope = gradient(spikes_of(torched(lambda: NEURONS[name](spike_grad=its()))), x)
    model = adapted(torched(NEURONS[name]), (1, 8, 8), 4)
    with using_surrogate(model, ours):
        found, grad = gradient(model, x)
    assert torch.equal(found, expected)
    torch.testing.assert_close(grad, slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max()))
    assert not torch.allclose(gradient(model, x)[1], slope, rtol=1e-2)


@every
def test_what_is_watched_is_what_happens(name: str) -> None:
    x, net = images(6), torched(NEURONS[name])
    model = adapted(net, (1, 8, 8), 4)
    expected = model(x)
    last = list(traces(model, x).values())[-1]
    assert torch.equal(last.spikes, net(x)[0])
    for layer_name, trace in traces(model, x).items():
        fires = trace.potential > spiking_layers(model)[layer_name].v_threshold
        assert (fires == (trace.spikes > 0)).double().mean() > 0.999
    assert torch.equal(model(x), expected)


@every
def test_gradients_in_the_currents_are_those_of_the_steps(name: str) -> None:
    x, net = images(6), torched(NEURONS[name])
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, out: Tensor) -> None:
        out.retain_grad()
        kept.append(out)

    hook = net.fc.register_forward_hook(keep)
    (spikes_of(net)(x.requires_grad_()) * WEIGHTS).sum().backward()
    hook.remove()
    expected = torch.stack([step.grad for step in kept])  # type: ignore[misc]
    model = adapted(net, (1, 8, 8), 4)
    with recording_currents(model) as currents:
        out = model(x)
    (grad,) = torch.autograd.grad((out * WEIGHTS).sum(), [list(currents.values())[-1]])
    assert expected.abs().sum() > 0
    torch.testing.assert_close(grad, expected)
    torch.testing.assert_close(list(currents.values())[-1].detach(), torch.stack(kept).detach())


def test_a_network_with_hidden_states_is_called_once_a_step() -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 20), snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(20, 10),
            snn.Leaky(beta=0.9, init_hidden=True, output=True),
        )  # fmt: skip

    torch.manual_seed(0)
    net, x = excited(build(), 5.0), images(6)
    model = adapted(net, (1, 8, 8), 7)
    assert isinstance(model, Adapted)
    assert (model.way, model.T) == ("step", 7)
    its = build().eval()
    its.load_state_dict(net.state_dict())
    utils.reset(its)
    expected = torch.stack([its(x)[0] for _ in range(7)]).mean(0)
    assert expected.abs().sum() > 0
    assert torch.equal(model(x), expected)
    assert torch.equal(model(x), expected)


def test_what_counts_of_an_output() -> None:
    spikes, potentials = torch.rand(5, 3, 10), torch.rand(5, 3, 10)
    assert torch.equal(logits_of((spikes, potentials), 3), spikes.mean(0))
    assert torch.equal(logits_of(list(spikes), 3), spikes.mean(0))
    assert torch.equal(logits_of(spikes[0], 3), spikes[0])
    with pytest.raises(ValueError, match="time comes first"):
        logits_of(spikes, 5)
    for other in (spikes[0, 0], {"logits": spikes}, None, ()):
        with pytest.raises(ValueError, match="not logits"):
            logits_of(other, 3)
