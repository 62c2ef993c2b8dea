"""The reference networks as the literature describes them, and what all networks promise."""

import pytest
import torch
from support import images
from torch import nn

from bench.registry import MODELS
from models import NeuronSpec, SpikingNet
from models.cnn import cnn_large, cnn_medium, cnn_small
from models.neurons import spiking_layers
from models.tiny import tiny, tiny_wide
from models.vgg import VGG11
from models.wrn import ConvexCombination, WRN16x4

BUILDERS = {
    "cnn-small": cnn_small,
    "cnn-medium": cnn_medium,
    "cnn-large": cnn_large,
    "vgg11": VGG11,
    "wrn16-4": WRN16x4,
    "tiny": tiny,
    "tiny-wide": tiny_wide,
}
NAMES = pytest.mark.parametrize("name", BUILDERS)


def build(name: str, neuron: NeuronSpec | None = None, T: int = 2, side: int = 32) -> SpikingNet:
    spec = neuron or NeuronSpec()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BUILDERS[name](10, (3, side, side), spec.build, T=T, mean=(0.5,) * 3, std=(0.25,) * 3).eval()  # type: ignore[operator,no-any-return]


def lively(name: str, neuron: NeuronSpec | None = None, T: int = 2) -> SpikingNet:
    """On small images, and with enough gain that spikes reach the last layer."""
    model = build(name, neuron, T, side=16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 4.0)
        if isinstance(module, nn.Linear):
            generator = torch.Generator().manual_seed(0)
            nn.init.normal_(module.weight, std=3 / module.in_features**0.5, generator=generator)
    return model


def count(model: nn.Module, kind: type) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_every_registered_network_is_tested_here() -> None:
    assert {entry for entry in MODELS.names() if MODELS.entry(entry).builtin} == set(BUILDERS)


def test_vgg11_is_the_reference_s() -> None:
    model = build("vgg11")
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [64, 128, 256, 512, 512, 512, 512, 512]
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [
        (8192, 4096), (4096, 4096), (4096, 10),
    ]  # fmt: skip
    assert count(model, nn.AvgPool2d) == 3
    assert len(spiking_layers(model)) == 10
    assert parameters(model) == 61_377_034


def test_wrn16_4_is_the_reference_s() -> None:
    model = build("wrn16-4")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 13
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 3
    assert len(spiking_layers(model)) == 13
    assert parameters(model) == 2_748_902
    combinations = [m for m in model.modules() if isinstance(m, ConvexCombination)]
    assert len(combinations) == 6
    assert all(m.coefficients.tolist() == [0.5, 0.5] for m in combinations)


@NAMES
def test_logits_have_the_right_shape_and_gradients_reach_the_pixels(name: str) -> None:
    model, x = lively(name), images(2, 3, 16, 16).requires_grad_()
    logits = model(x)
    assert logits.shape == (2, 10)
    (grad,) = torch.autograd.grad(logits[:, 0].sum(), x)
    assert float(grad.abs().sum()) > 0


@NAMES
def test_state_never_leaks_from_one_call_into_the_next(name: str) -> None:
    model, a, b = lively(name), images(2, 3, 16, 16), images(3, 3, 16, 16, seed=9)
    with torch.no_grad():
        first = model(a)
        model(b)
        assert torch.equal(model(a), first)
    assert not torch.allclose(first[0], first[1])


@NAMES
def test_an_image_encoded_once_equals_the_image_repeated_over_time(name: str) -> None:
    model, x = lively(name, T=3).double(), images(2, 3, 16, 16, dtype=torch.float64)
    once, repeated = x.clone().requires_grad_(), x.clone().requires_grad_()
    a = model(once)
    b = model(repeated.unsqueeze(1).expand(2, 3, 3, 16, 16))
    assert torch.allclose(a, b, rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(v.square().sum(), x)[0] for v, x in ((a, once), (b, repeated))]
    assert torch.allclose(grads[0], grads[1], rtol=1e-9, atol=1e-12)


@NAMES
def test_the_fused_and_the_written_out_neuron_give_one_network(name: str) -> None:
    results = []
    for reference in (False, True):
        model = lively(name, T=3).double()
        for layer in spiking_layers(model).values():
            layer.reference = reference
        x = images(2, 3, 16, 16, dtype=torch.float64).requires_grad_()
        value = model(x)
        results.append((value, torch.autograd.grad(value.square().sum(), [x, *model.parameters()])))
    assert torch.allclose(results[0][0], results[1][0], rtol=0, atol=1e-12)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_frames_set_the_number_of_time_steps() -> None:
    model = lively("cnn-small", T=2)
    assert model.forward_steps(torch.rand(2, 7, 3, 16, 16)).shape == (7, 2, 10)
    assert model.forward_steps(torch.rand(2, 3, 16, 16)).shape == (2, 2, 10)


def test_the_prediction_is_the_time_mean() -> None:
    model, x = lively("cnn-small", T=4), images(2, 3, 16, 16)
    assert torch.equal(model(x), model.forward_steps(x).mean(0))


def test_normalisation_happens_inside() -> None:
    model, plain = lively("cnn-small").double(), lively("cnn-small").double()
    plain.mean.zero_()
    plain.std.fill_(1)
    x = images(2, 3, 16, 16, dtype=torch.float64)
    assert torch.allclose(model(x), plain((x - 0.5) / 0.25))


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (3, 16, 16), (2, 4, 1, 16, 16)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected images \[N, 3, H, W\]"):
        lively("cnn-small")(torch.rand(shape))


def test_sides_that_do_not_halve_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 8"):
        build("vgg11", side=28)


def test_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="T must be at least 1"):
        build("cnn-small", T=0)


@NAMES
def test_a_batch_of_none_is_fine(name: str) -> None:
    assert build(name, side=16)(torch.rand(0, 3, 16, 16)).shape == (0, 10)
