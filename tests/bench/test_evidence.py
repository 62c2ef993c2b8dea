"""Evidence on gradients and potentials: closed forms, direct loops, and no trace left behind."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks.threat import Threat
from bench.evidence.collect import collect
from bench.evidence.gradients import hoyer, input_gradients, layer_gradients
from bench.evidence.membrane import layer_membranes
from bench.evidence.numbers import plain, spread
from bench.evidence.probe import Probe, traces
from models.neurons import LIF, NeuronSpec, record_membrane
from models.random import noise_stream
from models.surrogates import ArcTan, Rectangular

NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))


def probe(n: int, **options: object) -> Probe:
    return Probe(torch.arange(n), **options)  # type: ignore[arg-type]


class OneLayer(nn.Module):
    """Pixels are currents of LIF neurons over 2 steps; logit k is the spike count of neuron k times its gain."""

    def __init__(self, gain: tuple[float, ...]) -> None:
        super().__init__()
        self.neuron = LIF(decay=0.0, surrogate=Rectangular(gamma=1.0))
        self.register_buffer("gain", torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron(x.expand(2, *x.shape))
        return spikes.sum(0) * self.gain


def test_zero_gradients_of_a_network_built_by_hand() -> None:
    # With decay 0 the potential is the pixel; the surrogate reaches (0.5, 1.5). Gain 0 cuts the third neuron off.
    model = OneLayer((1.0, 1.0, 0.0))
    x = torch.tensor([[0.9, 0.2, 0.9], [3.0, 0.1, 1.2], [1.1, 1.2, 0.6], [0.7, 2.0, 0.0]])
    y = torch.zeros(4, dtype=torch.int64)
    (layer,) = layer_gradients(model, x, y, probe(4, batch=3))
    slopes = [1, 0, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert layer.zero_slope == pytest.approx([1 - sum(slopes) / 12] * 2)
    reaching = [1, 0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0]
    assert layer.zero_gradient == pytest.approx([1 - sum(reaching) / 12] * 2)
    ce, margin = input_gradients(model, x, y, probe(4, batch=3))
    assert ce.zero_share == pytest.approx(1 - sum(reaching) / 12)
    assert ce.zero_images == margin.zero_images == 0.25


def test_a_sure_softmax_hides_a_gradient_that_the_margin_shows() -> None:
    model = OneLayer((1000.0, 1.0))
    x, y = torch.tensor([[1.1, 0.9]]), torch.tensor([0])
    ce, margin = input_gradients(model, x, y, probe(1))
    assert (ce.zero_images, margin.zero_images) == (1.0, 0.0)
    assert math.isnan(ce.hoyer.mean)
    assert ce.to_json()["hoyer"]["mean"] is None


def test_gradients_are_those_of_the_attacker_s_surrogate() -> None:
    model, x, y = spiking_net(), images(12), labels(12)
    own, reaching_everywhere = (layer_gradients(model, x, y, probe(12, gradient=g)) for g in (None, ArcTan()))
    assert min(own[0].zero_slope) > 0.3
    assert all(share == 0 for layer in reaching_everywhere for share in layer.zero_slope)
    assert input_gradients(model, x, y, probe(12, gradient=ArcTan()))[0].norm != (
        input_gradients(model, x, y, probe(12))[0].norm
    )


def test_a_neuron_without_slope_can_carry_gradient_to_a_later_step() -> None:
    model = OneLayer((1.0, 1.0))
    model.neuron.decay = 1.0
    # V = 0.4 then 0.8: out of the surrogate's reach at the first step, within at the second.
    (layer,) = layer_gradients(model, torch.tensor([[0.4, 0.4]]), torch.tensor([0]), probe(1))
    assert layer.zero_slope == (1.0, 0.0)
    assert layer.zero_gradient == (0.0, 0.0)


@given(st.integers(2, 40), st.integers(1, 40), st.floats(1e-12, 1e12), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_hoyer_of_equal_entries_is_known_and_does_not_see_the_scale(n: int, k: int, scale: float, seed: int) -> None:
    k = min(k, n)
    values = torch.zeros(1, n, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    values[0, torch.randperm(n, generator=generator)[:k]] = scale
    expected = (math.sqrt(n) - math.sqrt(k)) / (math.sqrt(n) - 1)
    assert float(hoyer(values)) == pytest.approx(expected, abs=1e-9)
    noise = torch.randn(3, n, generator=generator, dtype=torch.float64)
    assert torch.allclose(hoyer(noise * scale), hoyer(noise), atol=1e-9)


def test_hoyer_of_nothing_is_not_a_number_and_of_one_entry_an_error() -> None:
    assert torch.isnan(hoyer(torch.zeros(1, 5))).all()
    assert float(hoyer(torch.tensor([[1e-200, 0.0, 0.0, 0.0]], dtype=torch.float64))) == 1
    with pytest.raises(ValueError, match="at least two"):
        hoyer(torch.ones(3, 1))


@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_neighbours_and_rates_against_a_direct_loop(neuron: NeuronSpec) -> None:
    model, x, delta = spiking_net(neuron, T=3), images(10), 0.3
    draws = 2 if model.neurons[0].stochastic else 1
    found = layer_membranes(model, x, probe(10, key=7, draws=draws, batch=4), delta)
    near: dict[str, list[list[bool]]] = {}
    fires: dict[str, list[list[bool]]] = {}
    spikes: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LIF):
            layer.register_forward_hook(lambda m, a, out, name=name: spikes.__setitem__(name, out))
    for draw in range(draws):
        with noise_stream(model, 7, torch.arange(10), draw), record_membrane(model) as membrane, torch.no_grad():
            model(x)
        for name, v in membrane.items():
            for t in range(3):
                near.setdefault(f"{name}{t}", []).append([abs(u - 1.0) < delta for u in v[t].flatten().tolist()])
                fires.setdefault(f"{name}{t}", []).append([s == 1 for s in spikes[name][t].flatten().tolist()])
    for layer in found:
        for t in range(3):
            for share, seen in ((layer.near[t], near), (layer.rate[t], fires)):
                flat = [hit for part in seen[f"{layer.name}{t}"] for hit in part]
                assert share == pytest.approx(sum(flat) / len(flat))
        count = layer.neurons
        ever = [False] * count
        for t in range(3):
            for part in fires[f"{layer.name}{t}"]:
                for place, hit in enumerate(part):
                    ever[place % count] |= hit
        assert layer.silent == pytest.approx(1 - sum(ever) / count)
    assert 0 < found[0].near[0] < 1


def test_a_silent_neuron_is_one_that_no_image_wakes() -> None:
    x = torch.tensor([[2.0, 0.1, 0.3], [0.1, 0.1, 0.4]])
    (layer,) = layer_membranes(OneLayer((1.0, 1.0, 1.0)), x, probe(2, batch=1))
    assert layer.silent == pytest.approx(2 / 3)
    assert layer.mean_rate == pytest.approx(1 / 6)
    with pytest.raises(ValueError, match="delta"):
        layer_membranes(OneLayer((1.0, 1.0, 1.0)), x, probe(2), -0.1)


def test_the_potential_that_met_the_threshold_explains_every_spike_of_a_noisy_network() -> None:
    model, x = spiking_net(NOISY), images(6)
    looked = probe(6, key=3)
    with looked.realisation(model, slice(0, 6), 1):
        found = traces(model, x)
    for trace in found.values():
        assert torch.equal((trace.potential >= 1).float(), trace.spikes)
        assert not torch.equal((trace.membrane >= 1).float(), trace.spikes)


def test_everything_repeats_and_leaves_no_mark() -> None:
    model, x, y = spiking_net(NOISY), images(6), labels(6)
    model.train()
    model.readout.weight.grad = torch.ones_like(model.readout.weight)
    model.readout.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator, pixels = torch.get_rng_state(), x.clone()
    flags = [p.requires_grad for p in model.parameters()]
    arguments = (model, x, y, 1 - x, probe(6, key=5, draws=2, batch=4, gradient=ArcTan()), Threat(0.1))  # type: ignore[arg-type]
    first, second = (collect(*arguments, grid=3) for _ in range(2))
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state()) and torch.equal(pixels, x)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(module.training for module in model.modules())
    assert torch.equal(model.readout.weight.grad, torch.ones_like(model.readout.weight))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "readout.weight")
    assert all(not layer._forward_hooks and not layer._recorders for layer in model.neurons)
    assert all(layer.surrogate != ArcTan() for layer in model.neurons)


def test_batches_change_nothing_but_rounding() -> None:
    model, x, y = spiking_net(NOISY).double(), images(7, dtype=torch.float64), labels(7)
    whole, split = (collect(model, x, y, 1 - x, probe(7, batch=b), Threat(0.1), grid=0) for b in (7, 3))  # type: ignore[arg-type]

    def numbers(value: object) -> list[float]:
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        if isinstance(value, list):
            return [n for item in value for n in numbers(item)]
        return [value] if isinstance(value, float) else []

    a, b = numbers(whole.to_json()), numbers(split.to_json())
    assert len(a) > 100
    assert a == pytest.approx(b, rel=1e-6, abs=1e-9)


def test_spread_of_nothing_and_of_infinities() -> None:
    assert math.isnan(spread(torch.tensor([])).median)
    known = spread(torch.tensor([1.0, math.inf, 3.0, math.nan, 8.0]))
    assert (known.mean, known.median, known.low, known.high) == (4.0, 3.0, 1.0, 8.0)
    assert plain({"a": (math.nan, [math.inf, 1])}) == {"a": [None, [None, 1]]}
