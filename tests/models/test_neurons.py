"""Layers as modules: parameters, noise, the membrane on request, the attacker's surrogate."""

import pytest
import torch
from support import images, spiking_net
from torch import nn

from models import LIF, NeuronSpec, NoisyLIF, noise_stream, record_membrane, using_surrogate
from models.neurons import is_stochastic, number_layers, spiking_layers
from models.surrogates import ArcTan, Triangular

NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))


def test_the_defaults_are_the_paper_s() -> None:
    neuron = LIF()
    assert (neuron.decay, neuron.v_threshold, neuron.v_reset) == (0.5, 1.0, 0.0)
    assert neuron.surrogate == Triangular(1.0)
    assert not neuron.detach_reset
    assert NoisyLIF().noise_var == 0.4


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (LIF, {"decay": 1.1}, "decay must lie in"),
        (LIF, {"decay": float("nan")}, "decay must lie in"),
        (LIF, {"v_threshold": 0.0}, "must be above v_reset"),
        (NoisyLIF, {"noise_var": -0.1}, "must not be negative"),
        (NoisyLIF, {"noise_var": float("nan")}, "must not be negative"),
    ],
)
def test_impossible_neurons_are_refused(kind: type, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_a_neuron_has_no_state_at_all() -> None:
    for neuron in (LIF(), NoisyLIF()):
        neuron(torch.rand(4, 2, 3) * 3)
        assert not list(neuron.parameters())
        assert not list(neuron.buffers())


def test_a_value_builds_the_neuron_it_describes() -> None:
    spec = NeuronSpec("nlif", 0.9, 0.7, True, "arctan:alpha=3", (("noise_var", 0.16),))
    neuron = spec.build()
    assert isinstance(neuron, NoisyLIF)
    assert (neuron.decay, neuron.v_threshold, neuron.detach_reset, neuron.noise_var) == (0.9, 0.7, True, 0.16)
    assert neuron.surrogate == ArcTan(3)
    assert spec.build() is not neuron


def test_noise_has_the_stated_variance() -> None:
    zeros = torch.zeros(4, 100, 8, 5, 5)
    for draw in ("torch", "stream"):
        neuron = NoisyLIF(0.4)
        if draw == "torch":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                noise = neuron.noise(zeros)
        else:
            with noise_stream(neuron, 0, torch.arange(100)) as stream:
                stream.begin_forward()
                noise = neuron.noise(zeros)
        assert noise is not None
        assert float(noise.var()) == pytest.approx(0.4, rel=0.02)
        assert float(noise.mean()) == pytest.approx(0, abs=0.01)


def test_noise_makes_a_neuron_fire_as_often_as_the_normal_law_says() -> None:
    neuron = NoisyLIF(0.4, decay=0.0)
    with noise_stream(neuron, 0, torch.arange(200)):
        rate = neuron(torch.full((4, 200, 50), 0.5)).mean()
    expected = 1 - torch.special.ndtr(torch.tensor(0.5 / 0.4**0.5))
    assert float(rate) == pytest.approx(float(expected), abs=0.01)


def test_noise_does_not_follow_train_and_eval() -> None:
    for model in (spiking_net(NOISY).train(), spiking_net(NOISY).eval()):
        assert is_stochastic(model)
        x = images(4)
        assert not torch.equal(model(x), model(x))


def test_noise_can_be_switched_off() -> None:
    model, x = spiking_net(NOISY), images(4)
    for layer in spiking_layers(model).values():
        layer.noise_on = False  # type: ignore[attr-defined]
    assert not is_stochastic(model)
    assert torch.equal(model(x), spiking_net()(x))


def test_zero_variance_is_the_plain_neuron_without_randomness() -> None:
    model, x = spiking_net(NeuronSpec("nlif", params=(("noise_var", 0.0),))), images(4)
    before = torch.get_rng_state()
    assert torch.equal(model(x), spiking_net()(x))
    assert torch.equal(before, torch.get_rng_state())
    assert not is_stochastic(model)


def test_in_a_stream_every_forward_call_is_a_new_draw_and_the_same_each_time() -> None:
    model, x = spiking_net(NOISY), images(4)

    def draws(first: int, count: int) -> list[torch.Tensor]:
        with noise_stream(model, 9, torch.arange(4), first):
            return [model(x) for _ in range(count)]

    three = draws(0, 3)
    assert not torch.equal(three[0], three[1])
    assert torch.equal(draws(2, 1)[0], three[2])
    before = torch.get_rng_state()
    draws(0, 1)
    assert torch.equal(before, torch.get_rng_state())


def test_layers_of_a_network_draw_different_noise() -> None:
    model = spiking_net(NOISY)
    layers = list(spiking_layers(model).values())
    assert [layer.layer for layer in layers] == [0, 1]
    zeros = torch.zeros(2, 3, 4)
    with noise_stream(model, 0, torch.arange(3)) as stream:
        stream.begin_forward()
        first, second = (layer.noise(zeros) for layer in layers)
    assert not torch.equal(first, second)  # type: ignore[arg-type]


def test_the_membrane_is_there_for_who_asks_and_only_then() -> None:
    model, x = spiking_net(T=3), images(2)
    plain = model(x)
    with record_membrane(model) as membrane:
        assert torch.equal(model(x), plain)
        with record_membrane(model) as inner:
            model(x)
        assert inner.keys() == membrane.keys()
    assert list(membrane) == list(spiking_layers(model))
    first = membrane[next(iter(membrane))]
    assert first.shape == (3, 2, 8, 8, 8)
    assert first.requires_grad
    kept = dict(membrane)
    model(x)
    assert all(membrane[name] is value for name, value in kept.items())
    assert not any(layer._recorders for layer in spiking_layers(model).values())


def test_recording_ends_after_an_error() -> None:
    model = spiking_net()
    with pytest.raises(RuntimeError), record_membrane(model):
        raise RuntimeError
    assert not any(layer._recorders for layer in spiking_layers(model).values())


def test_the_attacker_s_surrogate_changes_gradients_and_nothing_else() -> None:
    model, x = spiking_net(), images(3).requires_grad_()
    (own,) = torch.autograd.grad(model(x).sum(), x)
    with using_surrogate(model, ArcTan(4)):
        logits = model(x)
        (other,) = torch.autograd.grad(logits.sum(), x)
    assert torch.equal(logits, model(x))
    assert not torch.allclose(own, other)
    assert all(layer.surrogate == Triangular() for layer in spiking_layers(model).values())
    with using_surrogate(model, None):
        assert torch.equal(torch.autograd.grad(model(x).sum(), x)[0], own)
    with pytest.raises(RuntimeError), using_surrogate(model, ArcTan()):
        raise RuntimeError
    assert all(layer.surrogate == Triangular() for layer in spiking_layers(model).values())


def test_other_modules_are_not_stochastic() -> None:
    assert not is_stochastic(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))


def test_any_module_with_noisy_neurons_draws_anew_in_each_call_and_each_layer() -> None:
    """A network of one's own need not derive from SpikingNet."""
    model = nn.Sequential(NoisyLIF(), NoisyLIF())
    number_layers(model)
    seen: list[torch.Tensor] = []
    for layer in model:
        layer.register_forward_hook(lambda layer, _, spikes: seen.append(spikes))
    zeros = torch.zeros(4, 3, 50)
    with noise_stream(model, 0, torch.arange(3)):
        model(zeros)
        model(zeros)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
