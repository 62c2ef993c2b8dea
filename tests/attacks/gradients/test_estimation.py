"""Every gradient: the network's own output, nothing left behind, no image in another's gradient, means over draws."""

import math
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import KEY, batch, network
from support import images, labels, spiking_net
from torch import Tensor, nn

from attacks.gradients import GRADIENTS, InputGradient, estimating, frozen, input, input_gradient, parse_gradient
from attacks.gradients.estimation import active_estimation
from attacks.losses import cross_entropy, towards
from models.neurons import LIF, NeuronSpec, record_membrane, spiking_layers
from models.random import noise_stream
from models.surrogates import ArcTan, Triangular

NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
NAMES = pytest.mark.parametrize("name", GRADIENTS)
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def taken(model: nn.Module, name: str | None, x: Tensor, y: Tensor, draws: int | None = None) -> InputGradient:
    gradient = parse_gradient(name) if name else None
    with noise_stream(model, KEY, torch.arange(len(x))), frozen(model), estimating(model, gradient, draws):
        return input_gradient(model, x, y, cross_entropy)


@NAMES
@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_the_logits_are_bit_for_bit_the_network_s(name: str, neuron: NeuronSpec) -> None:
    for T, dtype, layout in product((1, 4), DTYPES.values(), (torch.contiguous_format, torch.channels_last)):
        model = spiking_net(neuron, T=T, dtype=dtype).to(memory_format=layout)
        x, y = images(6, dtype=dtype).to(memory_format=layout), labels(6)
        with noise_stream(model, KEY, torch.arange(6)), torch.no_grad():
            own = model(x)
        assert len(own.unique()) > 6
        at = taken(model, name, x, y)
        assert torch.equal(at.logits, own)
        assert torch.equal(at.loss, cross_entropy(own, y))
        if getattr(GRADIENTS[name](), "faithful", True):
            with noise_stream(model, KEY, torch.arange(6)), estimating(model, parse_gradient(name)):
                assert torch.equal(model(x.clone().requires_grad_()), own)


@NAMES
@pytest.mark.parametrize("dtype", DTYPES)
def test_silent_and_saturated_networks_have_finite_gradients(name: str, dtype: str) -> None:
    """All neurons of a layer at one potential: never near the threshold, exactly at it, or firing at every step."""
    model = spiking_net(NeuronSpec(), T=4, dtype=DTYPES[dtype])
    for current in (-100.0, 0.0, 1.0, 100.0, 1e4):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.weight)
                nn.init.constant_(module.bias, current)
        at = taken(model, name, images(3, dtype=DTYPES[dtype]), labels(3))
        assert torch.isfinite(at.grad).all()
        assert torch.isfinite(at.loss).all()


@NAMES
@pytest.mark.parametrize("scale", [1e-4, 1e3])
def test_extreme_inputs_to_the_neurons_have_finite_gradients(name: str, scale: float) -> None:
    model = spiking_net(NeuronSpec(), T=4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, scale)
    assert torch.isfinite(taken(model, name, images(3), labels(3)).grad).all()


@NAMES
@pytest.mark.parametrize("kind", ["lif", "noisy"])
@settings(max_examples=4, deadline=None)
@given(order=st.permutations(range(6)), cut=st.integers(1, 5), draws=st.sampled_from([1, 3]))
def test_neither_batch_size_nor_order_matters(name: str, kind: str, order: list[int], cut: int, draws: int) -> None:
    model, gradient = network(kind, T=2), parse_gradient(name)
    x, y = batch(6)

    def run(index: Tensor) -> Tensor:
        # Two points, so that a gradient with memory shows whose it remembers.
        with noise_stream(model, KEY, index), estimating(model, gradient, draws):
            first = input_gradient(model, x[index], y[index], cross_entropy)
            second = input_gradient(model, 1 - x[index], y[index], cross_entropy)
        return torch.cat([first.grad, second.grad], 1)

    whole, shuffled = run(torch.arange(6)), torch.tensor(order)
    parts = torch.cat([run(shuffled[:cut]), run(shuffled[cut:])])
    assert torch.allclose(parts, whole[shuffled], rtol=1e-8, atol=1e-12)


class Fails(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        self.model(x)
        raise RuntimeError("in the middle")


def traces(model: nn.Module) -> Iterator[object]:
    for layer in spiking_layers(model).values():
        yield from (layer.replacement, layer.surrogate, layer.noise, layer._recorders, layer.decay)
    yield from (parameter.requires_grad for parameter in model.parameters())
    yield active_estimation().draws
    yield active_estimation().faithful


@NAMES
def test_nothing_is_left_after_the_block_or_an_error(name: str) -> None:
    model, x, y = spiking_net(NOISY), images(4), labels(4)
    before, generator = list(traces(model)), torch.get_rng_state()
    taken(model, name, x, y, 3)
    assert list(traces(model)) == before
    with pytest.raises(RuntimeError, match="in the middle"):
        taken(Fails(model), name, x, y, 3)
    assert list(traces(model)) == before
    assert torch.equal(generator, torch.get_rng_state())


def test_an_error_in_a_gradient_s_own_making_leaves_nothing() -> None:
    class Broken:
        name, faithful, version = "broken", True, 1

        def for_layer(self, layer: LIF) -> object:
            raise RuntimeError("no")

    model = spiking_net()
    before = list(traces(model))
    with pytest.raises(RuntimeError, match="no"), estimating(model, Broken()):  # type: ignore[arg-type]
        pass
    assert list(traces(model)) == before


def test_scoring_is_untouched_where_a_neuron_sees_the_image_itself() -> None:
    layer, current = LIF(), torch.rand(4, 3, 5).requires_grad_()
    own = layer(current)
    with estimating(layer, parse_gradient("conversion")):
        assert not torch.equal(layer(current), own)
        assert torch.equal(layer(current.detach()), own)
        with torch.no_grad():
            assert torch.equal(layer(current), own)


def test_the_innermost_gradient_is_in_force() -> None:
    model, x, y = spiking_net(), images(4), labels(4)
    for outer, inner in product(["rga", "conversion", "arctan:alpha=9"], ["bptr", "sigmoid", "conversion"]):
        with estimating(model, parse_gradient(outer)):
            alone = taken(model, None, x, y)
            nested = taken(model, inner, x, y)
            again = taken(model, None, x, y)
        assert torch.equal(nested.grad, taken(model, inner, x, y).grad), (outer, inner)
        assert torch.equal(nested.logits, model(x))
        assert torch.equal(alone.grad, again.grad)
        assert torch.equal(alone.grad, taken(model, outer, x, y).grad)
    assert all(layer.surrogate == Triangular() for layer in spiking_layers(model).values())


def test_draws_are_what_the_innermost_block_that_names_them_says() -> None:
    model = spiking_net()
    with estimating(model, None, 5):
        with estimating(model, ArcTan()):
            assert active_estimation().draws == 5
            with estimating(model, None, 1):
                assert active_estimation().draws == 1
        assert active_estimation().draws == 5
    assert active_estimation().draws == 1


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="eot must be at least 1, got 0"), estimating(spiking_net(), None, 0):
        pass
    for name in ("rga", "arctan"):
        with (
            pytest.raises(ValueError, match=f"no spiking layer that '{name}' could differentiate"),
            estimating(nn.Linear(2, 2), parse_gradient(name)),
        ):
            pass


@NAMES
def test_the_membrane_can_be_recorded_meanwhile(name: str) -> None:
    if not getattr(GRADIENTS[name](), "faithful", True):
        pytest.skip("its forward pass is another network's")
    model, x, y = spiking_net(NOISY), images(4), labels(4)
    with noise_stream(model, KEY, torch.arange(4)), record_membrane(model) as own:
        model(x)
        own = dict(own)
    with record_membrane(model) as membrane:
        taken(model, name, x, y)
    assert membrane.keys() == own.keys()
    for layer, v in own.items():
        assert torch.equal(membrane[layer], v)


def mean_of_single_draws(model: nn.Module, name: str | None, x: Tensor, y: Tensor, draws: int) -> InputGradient:
    """Each draw by itself, in a stream that begins with it."""
    gradient = parse_gradient(name) if name else None
    parts = []
    for draw in range(draws):
        with noise_stream(model, KEY, torch.arange(len(x)), draw), estimating(model, gradient):
            parts.append(input_gradient(model, x, y, cross_entropy))
    return InputGradient(*(torch.stack(values).mean(0) for values in zip(*parts, strict=True)))


def assert_same(a: InputGradient, b: InputGradient) -> None:
    for one, other in zip(a, b, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", [None, *(name for name in GRADIENTS if name != "assg")])
@pytest.mark.parametrize("draws", [1, 3, 7])
def test_the_mean_over_draws_is_that_of_single_gradients(
    name: str | None, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ASSG, whose draws share a state: test_assg."""
    model, (x, y) = network("noisy", T=2), batch()
    expected = mean_of_single_draws(model, name, x, y, draws)
    passes = 1 if getattr(GRADIENTS[name]() if name else None, "faithful", True) else 2
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    for rows in (1, 12, 20, 512):  # Of five images, 1, 2, 4 or all copies fit a pass.
        monkeypatch.setattr(input, "FOLDED_ROWS", rows)
        sizes.clear()
        assert_same(taken(model, name, x, y, draws), expected)
        assert max(sizes) <= max(rows, 5)
        assert sum(sizes) == passes * 5 * draws
        assert len(sizes) == passes * math.ceil(draws / max(rows // 5, 1))


@pytest.mark.parametrize("name", [None, "rga", "noiseless", "conversion"])
def test_the_next_gradient_goes_on_with_the_next_draws(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = network("noisy"), batch()
    gradient, results = parse_gradient(name) if name else None, []
    for rows in (5, 10, 512):
        monkeypatch.setattr(input, "FOLDED_ROWS", rows)
        with noise_stream(model, KEY, torch.arange(5)) as stream, estimating(model, gradient, 3):
            parts = [input_gradient(model, x, y, cross_entropy) for _ in range(2)]
            assert stream.next_draw == 6
        results.append(parts)
    for parts in results[1:]:
        for a, b in zip(parts, results[0], strict=True):
            assert_same(a, b)
    assert not torch.allclose(results[0][0].logits, results[0][1].logits)


@pytest.mark.parametrize("name", [None, "rga", "noiseless"])
def test_labels_of_any_shape_are_folded_with_the_images(name: str | None) -> None:
    model, (x, y) = network("noisy"), batch()
    pairs = torch.stack([y, (y + 1) % 4], 1)
    with noise_stream(model, KEY, torch.arange(5)), estimating(model, parse_gradient(name) if name else None, 3):
        got = input_gradient(model, x, pairs, towards)
    parts = []
    for draw in range(3):
        with noise_stream(model, KEY, torch.arange(5), draw), estimating(model, parse_gradient(name) if name else None):
            parts.append(input_gradient(model, x, pairs, towards))
    assert_same(got, InputGradient(*(torch.stack(values).mean(0) for values in zip(*parts, strict=True))))


class Small(nn.Module):
    """Holds only so many rows."""

    def __init__(self, model: nn.Module, rows: int) -> None:
        super().__init__()
        self.model, self.rows = model, rows
        self.tried: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        self.tried.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError("injected")
        return logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [None, "hart", "noiseless", "conversion"])
@pytest.mark.parametrize("rows", [5, 11, 20])
def test_where_memory_ends_passes_are_halved_and_nothing_else_changes(name: str | None, rows: int) -> None:
    model, (x, y) = network("noisy"), batch()
    small = Small(model, rows)
    assert_same(taken(small, name, x, y, 7), taken(model, name, x, y, 7))
    assert small.tried[0] == 35
    assert small.tried[-1] <= rows


def test_what_did_not_fit_is_not_tried_again() -> None:
    model, (x, y) = network("noisy"), batch()
    small = Small(model, 15)
    with noise_stream(model, KEY, torch.arange(5)), estimating(small, None, 6):
        for _ in range(3):
            input_gradient(small, x, y, cross_entropy)
    assert small.tried == [30, 15, 15, 15, 15, 15, 15]


def test_a_single_draw_that_does_not_fit_is_the_caller_s_matter() -> None:
    model, (x, y) = network("noisy"), batch()
    small = Small(model, 4)
    with pytest.raises(torch.OutOfMemoryError), estimating(small, None, 6):
        input_gradient(small, x, y, cross_entropy)
    assert small.tried == [30, 15, 5]


@NAMES
def test_a_deterministic_network_s_mean_is_its_plain_gradient(name: str) -> None:
    model, (x, y) = network("lif"), batch()
    assert_same(taken(model, name, x, y, 5), taken(model, name, x, y))


def test_means_differ_from_single_draws_and_approach_one_another() -> None:
    """More draws, less noise: the squared distance of two means of 32 is about 1/32 of that of two draws."""
    model, (x, y) = network("noisy"), batch()

    def squared(draws: int) -> float:
        pair = []
        for key in (1, 2):
            with noise_stream(model, key, torch.arange(5)), estimating(model, None, draws):
                pair.append(input_gradient(model, x, y, cross_entropy).grad)
        return float((pair[0] - pair[1]).square().sum())

    assert 1 / 100 < squared(32) / squared(1) < 1 / 10


def test_an_empty_batch_has_an_empty_gradient() -> None:
    model = network("noisy")
    for name in (None, "rga", "noiseless"):
        at = taken(model, name, *(value[:0] for value in batch()), 3)
        assert [len(value) for value in at] == [0, 0, 0]
