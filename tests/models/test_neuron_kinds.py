"""Every kind of neuron with parameters of its own, on every network and on every path that computes."""

import copy
import functools
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.gradients import estimating, frozen, input, input_gradient
from attacks.gradients.conversion import Conversion
from attacks.gradients.names import read_gradient
from attacks.gradients.rates import RGA
from attacks.losses import cross_entropy
from bench.hygiene import check_model
from bench.registry import GRADIENTS, MODELS
from models.dynamic import DynamicLIF
from models.encoding import build_encoder
from models.gates import GatedLIF
from models.homeostatic import HomeostaticLIF
from models.leak import LeakyByStep
from models.neurons import (
    LIF,
    NeuronSpec,
    is_stochastic,
    number_layers,
    observing,
    record_membrane,
    spiking_layers,
    written_out,
)
from models.random import noise_stream
from models.shaped import ShapedLIF, settle_shapes

KINDS = pytest.mark.parametrize("kind", ["stog", "dlif", "el", "hosnn"])
NAMES = pytest.mark.parametrize("name", ["cnn-small", "cnn-medium", "tiny", "vgg11", "wrn16-4"])
FRAMES = pytest.mark.parametrize("frames", [False, True], ids=["image", "frames"])
T, SIDE = 3, 8
OWN = {"stog": "theta", "dlif": "p", "el": "leak", "hosnn": "theta"}


# No more than two: vgg11 is large.
@functools.lru_cache(maxsize=2)
def _fresh(name: str, kind: str, frames: bool) -> nn.Module:
    # Equal leaks make `el` the plain neuron.
    spec = NeuronSpec(kind, params=(("leak", 0.5),) if kind == "el" else ())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = MODELS.get(name)(
            num_classes=5, in_shape=(2, SIDE, SIDE), T=T, neuron=spec.build, mean=(0.2, 0.3), std=(0.3, 0.2)
        )
    settle_shapes(model, (2, SIDE, SIDE), T, frames=frames)
    number_layers(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.constant_(module.weight, 4.0)
        if isinstance(module, nn.Linear):
            generator = torch.Generator().manual_seed(0)
            nn.init.normal_(module.weight, std=3 / module.in_features**0.5, generator=generator)
    return model.eval()


def fresh(name: str, kind: str, frames: bool = False) -> nn.Module:
    """Lively enough that spikes reach the last layer; its own parameters as they are before training."""
    return copy.deepcopy(_fresh(name, kind, frames))


def stirred(name: str, kind: str, frames: bool = False) -> nn.Module:
    """The same with parameters as training might leave them."""
    model, random = fresh(name, kind, frames), torch.Generator().manual_seed(3)

    def between(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=random) * (high - low) + low

    with torch.no_grad():
        for layer in spiking_layers(model).values():
            if isinstance(layer, GatedLIF):
                layer.theta.copy_(between(layer.theta, 0.4, 1.1))
            elif isinstance(layer, DynamicLIF):
                layer.p.copy_(between(layer.p, 0.6, 1.4))
            elif isinstance(layer, LeakyByStep):
                layer.leak.copy_(between(layer.leak, 0.1, 1.0))
            elif isinstance(layer, HomeostaticLIF):
                layer.theta.copy_(between(layer.theta, 0.05, 0.3))
                layer.reference_potential.copy_(between(layer.reference_potential, -0.5, 1.0))
                layer.adapting.fill_(1)
    return model


def inputs(frames: bool = False, n: int = 6) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    shape = (n, *([T] if frames else []), 2, SIDE, SIDE)
    return torch.rand(shape, generator=random), torch.randint(0, 5, (n,), generator=random)


@FRAMES
@NAMES
@KINDS
def test_before_training_it_is_lif(kind: str, name: str, frames: bool) -> None:
    x, _ = inputs(frames)
    with torch.no_grad():
        plain, own = fresh(name, "lif", frames)(x), fresh(name, kind, frames)(x)
    assert plain.std() > 0
    torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-4)


@FRAMES
@pytest.mark.parametrize("name", ["cnn-small", "tiny", "wrn16-4"])
@KINDS
def test_its_logits_depend_on_nothing_but_the_image_and_its_draw(kind: str, name: str, frames: bool) -> None:
    model = stirred(name, kind, frames)
    check_model(model, inputs(frames)[0], 5)
    assert is_stochastic(model) == (kind == "stog")


@KINDS
def test_weights_carry_all_that_it_learnt(kind: str) -> None:
    learnt, other = stirred("cnn-small", kind), fresh("cnn-small", kind)
    x, _ = inputs()
    other.load_state_dict(learnt.state_dict())
    with torch.no_grad():
        for model in (learnt, other):
            with noise_stream(model, 5, torch.arange(len(x))):
                logits = model(x)
            if model is learnt:
                first = logits
    assert torch.equal(first, logits)
    assert not torch.equal(first, fresh("cnn-small", "lif")(x))


@FRAMES
@KINDS
def test_equations_written_out_give_the_same_logits_and_gradients(kind: str, frames: bool) -> None:
    model, (x, y) = stirred("cnn-small", kind, frames).double(), inputs(frames)
    found = []
    for way in (nullcontext(), written_out(model)):
        with way, frozen(model), noise_stream(model, 2, torch.arange(len(x))):
            found.append(input_gradient(model, x.double(), y, cross_entropy))
    torch.testing.assert_close(found[0].logits, found[1].logits)
    torch.testing.assert_close(found[0].grad, found[1].grad)
    assert found[0].grad.any()


@KINDS
def test_the_attacker_s_gradient_is_the_one_that_it_is_trained_with(kind: str) -> None:
    model, (x, y) = stirred("cnn-small", kind).double(), inputs()
    leaf = x.double().requires_grad_()
    with noise_stream(model, 2, torch.arange(len(x))):
        functional.cross_entropy(model(leaf), y, reduction="sum").backward()
    with frozen(model), noise_stream(model, 2, torch.arange(len(x))):
        torch.testing.assert_close(input_gradient(model, x.double(), y, cross_entropy).grad, leaf.grad)


@pytest.mark.parametrize("name", ["cnn-small", "tiny", "wrn16-4"])
@KINDS
def test_all_of_its_parameters_are_trained_and_in_bfloat16_too(kind: str, name: str) -> None:
    x, y = inputs()
    for bf16 in (False, True):
        model = stirred(name, kind).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            functional.cross_entropy(model(x), y).backward()
        for layer in spiking_layers(model).values():
            grad = layer.get_parameter(OWN[kind]).grad
            assert grad is not None and grad.isfinite().all() and grad.any()


@pytest.mark.parametrize("gradient", ["arctan", "bptr", "rga", "hart", "assg", "pdsg", "conversion", "noiseless"])
@KINDS
def test_every_gradient_differentiates_it(kind: str, gradient: str) -> None:
    model, (x, y) = stirred("cnn-small", kind), inputs()
    with torch.no_grad(), noise_stream(model, 2, torch.arange(len(x))):
        logits = model(x)
    way = read_gradient(gradient, GRADIENTS.get(gradient))
    with frozen(model), estimating(model, way), noise_stream(model, 2, torch.arange(len(x))):
        at = input_gradient(model, x, y, cross_entropy)
    torch.testing.assert_close(at.logits, logits)
    assert at.grad.isfinite().all() and at.grad.any()


@pytest.mark.parametrize("gradient", ["arctan", "rga", "hart", "assg", "pdsg", "conversion", "noiseless"])
@KINDS
def test_draws_in_one_pass_are_those_of_passes_of_their_own(
    kind: str, gradient: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (x, y) = stirred("cnn-small", kind).double(), inputs()
    model.encoder = build_encoder("poisson")
    way, found = read_gradient(gradient, GRADIENTS.get(gradient)), []
    for rows in (512, len(x)):
        monkeypatch.setattr(input, "FOLDED_ROWS", rows)
        with frozen(model), estimating(model, way, draws=3), noise_stream(model, 2, torch.arange(len(x))):
            found.append(input_gradient(model, x.double(), y, cross_entropy))
    torch.testing.assert_close(found[0].grad, found[1].grad)
    torch.testing.assert_close(found[0].logits, found[1].logits)


@pytest.mark.parametrize("gradient", ["", "pdsg"])
@KINDS
def test_recorded_potentials_reach_the_layer_s_threshold_where_it_fires(kind: str, gradient: str) -> None:
    model, (x, y) = stirred("cnn-small", kind).double(), inputs()
    layers, found = spiking_layers(model), []

    def see(name: str, layer: LIF, current: Tensor, spikes: Tensor) -> None:
        off = membrane[name].detach() - layer.v_threshold
        found.append(bool((((off >= 0) == (spikes > 0)) | (off.abs() < 1e-9)).all()))

    way = read_gradient(gradient, GRADIENTS.get(gradient)) if gradient else None
    with frozen(model), estimating(model, way), record_membrane(model) as membrane, observing(model, see):
        input_gradient(model, x.double(), y, cross_entropy)
    assert found == [True] * len(layers)


def test_rates_are_in_units_of_the_threshold_that_is_met() -> None:
    layer = HomeostaticLIF()
    current = torch.full((T, 2, 3), 0.9)
    current[:, 1] = -0.9
    layer(current)
    with torch.no_grad():
        # On its own course, above its reference and far below it.
        layer.reference_potential.copy_(torch.tensor([0.9, -1.0, 8.0]))
        layer.adapting.fill_(1)
    met = layer.constants(current).v_threshold
    assert isinstance(met, Tensor) and float(met[..., 1].mean(0)[0]) > 1.5 and float(met.mean(0)[:, 2].max()) < 0
    leaf = current.clone().requires_grad_()
    replacement = Conversion().for_layer(layer)
    (slope,) = torch.autograd.grad(replacement(layer, leaf).sum(), leaf)
    units = met.mean(0)
    open_ = (current.mean(0) > 0) & (current.mean(0) < units)
    torch.testing.assert_close(slope, (open_ / units).expand_as(slope))
    assert bool(open_.any()) and not bool(slope[..., 2].any())
    (slope,) = torch.autograd.grad(RGA().for_layer(layer)(layer, leaf).sum(), leaf)
    assert float(slope.min()) >= 0 and bool(slope[:, 0, :2].all()) and not bool(slope[..., 2].any())


def test_a_leak_learnt_below_zero_counts_as_none_in_a_rate() -> None:
    slopes = []
    for leak in (-1.0, 0.0):
        layer = LeakyByStep(leak)
        leaf = torch.full((T, 1, 2), 1.2, requires_grad=True)
        with torch.no_grad():
            layer(leaf)
        with frozen(layer):
            slopes += torch.autograd.grad(RGA().for_layer(layer)(layer, leaf).sum(), leaf)
    torch.testing.assert_close(slopes[0], slopes[1])


@KINDS
def test_another_number_of_steps_is_refused(kind: str) -> None:
    model = fresh("tiny", kind)
    model.T = T + 1
    assert any(isinstance(layer, ShapedLIF) for layer in spiking_layers(model).values())
    with pytest.raises(ValueError, match="3 steps"):
        model(inputs()[0])
