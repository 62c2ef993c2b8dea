"""Networks on frames: one frame a step, in order, on every path that computes."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy
from bench.registry import MODELS
from defenses.mc import mc
from models import CounterRNG, NeuronSpec, SpikingNet, noise_stream
from models.kernels import compiler, native
from models.neurons import record_membrane, spiking_layers, written_out
from models.wrn import WRN16x4

NAMES = pytest.mark.parametrize("name", sorted(n for n in MODELS.names() if MODELS.entry(n).builtin))
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
T = 3


def lively(name: str, neuron: NeuronSpec | None = None, side: int = 16) -> SpikingNet:
    """On frames of two polarities, with enough gain that spikes reach the last layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build = (neuron or NeuronSpec()).build
        model: SpikingNet = MODELS.get(name)(5, (2, side, side), build, T=T, mean=(0.2, 0.3), std=(0.3, 0.2))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.constant_(module.weight, 4.0)
        if isinstance(module, nn.Linear):
            generator = torch.Generator().manual_seed(0)
            nn.init.normal_(module.weight, std=3 / module.in_features**0.5, generator=generator)
    return model.eval()


def frames(n: int, side: int = 16, dtype: torch.dtype = torch.float32, steps: int = T, seed: int = 1) -> Tensor:
    """Sparse counts / 4, other ones at each step."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(-4, 5, (n, steps, 2, side, side), generator=generator).clamp_(min=0)
    return counts.to(dtype) / 4


@NAMES
def test_frames_give_what_the_written_out_equations_give(name: str) -> None:
    model, found = lively(name).double(), []
    for way in (nullcontext(), written_out(model)):
        with way, record_membrane(model) as membrane:
            x = frames(2, dtype=torch.float64).requires_grad_()
            logits = model.forward_steps(x)
            grads = torch.autograd.grad(logits.square().sum(), [x, *model.parameters()])
            found.append([logits, *grads, *membrane.values()])
    assert found[0][0].shape == (T, 2, 5)
    reached = found[0][1].abs().flatten(2).sum(2).sum(0) > 0
    # The few neurons of the smallest networks may all be far from their threshold in some step.
    assert int(reached.sum()) >= (2 if name.startswith("tiny") else T)
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)


@NAMES
def test_a_step_sees_its_frame_and_those_before_it(name: str) -> None:
    """Fed one frame after the other a network would say the same at each step."""
    model, x = lively(name).double(), frames(2, dtype=torch.float64)
    with torch.no_grad():
        steps = model.forward_steps(x)
        for count in range(1, T + 1):
            assert torch.allclose(model.forward_steps(x[:, :count]), steps[:count], rtol=0, atol=1e-12)
        later = x.clone()
        later[:, -1] = x[:, 0]
        assert torch.allclose(model.forward_steps(later)[:-1], steps[:-1], rtol=0, atol=1e-12)
        assert not torch.allclose(model.forward_steps(later)[-1], steps[-1])
        assert not torch.allclose(model(x.flip(1)), model(x)), "the order counts"
    assert torch.equal(model(x), model.forward_steps(x).mean(0))


@NAMES
@pytest.mark.parametrize("neuron", [None, NOISY], ids=["plain", "noisy"])
def test_one_frame_at_every_step_is_a_static_image(name: str, neuron: NeuronSpec | None) -> None:
    model, image = lively(name, neuron).double(), frames(2, steps=1, dtype=torch.float64)[:, 0]
    found = []
    for x in (image, image[:, None].expand(-1, T, -1, -1, -1)):
        x = x.clone().requires_grad_()
        with noise_stream(model, 5, torch.arange(2)):
            logits = model(x)
        (grad,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([0, 1])).sum(), x)
        found.append((logits, grad if grad.dim() == 4 else grad.sum(1)))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@NAMES
@pytest.mark.parametrize("neuron", [None, NOISY], ids=["plain", "noisy"])
def test_kernels_give_frames_the_bits_that_torch_gives_them(name: str, neuron: NeuronSpec | None) -> None:
    if not native.available():
        pytest.skip(f"no kernels here: {compiler.compiled()[1]}")
    model = lively(name, neuron).to(memory_format=torch.channels_last)
    x, y, found = frames(5), torch.arange(5), []
    for way in (nullcontext(), compiler.switched_off()):
        with way, frozen(model), noise_stream(model, 5, torch.arange(5)):
            found.append(input_gradient(model, x, y, cross_entropy))
    assert torch.equal(found[0].logits, found[1].logits)
    assert torch.equal(found[0].grad, found[1].grad)
    assert float(found[0].grad.abs().sum()) > 0


def test_tgo_sees_every_step_of_the_membrane() -> None:
    from defenses.base import Step

    (part,) = mc(lam_max=1.0).parts
    model, x, y = lively("cnn-small", NOISY).double(), frames(3, dtype=torch.float64), torch.arange(3)
    found = []
    for way in (nullcontext(), written_out(model)):
        with way, noise_stream(model, 2, torch.arange(3)), record_membrane(model) as membrane:
            logits = model(x)
            penalty = part.penalty(Step(model, x, y, logits, membrane, 1.0, x, CounterRNG(0, torch.arange(len(x)))))
            assert penalty is not None
            found.append((penalty, *torch.autograd.grad(penalty, list(model.stem.parameters()), allow_unused=True)))
        assert [len(v) for v in membrane.values()] == [T] * len(spiking_layers(model))
    assert float(found[0][0].detach()) > 0
    for a, b in zip(*found, strict=True):
        assert a is b is None or torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(34, 34), (17, 9), (4, 6)])
def test_wrn_pools_over_frames_of_any_size(shape: tuple[int, int]) -> None:
    model = WRN16x4(5, (2, *shape), NeuronSpec().build, T=2, mean=(0.2,) * 2, std=(0.3,) * 2).eval()
    x = torch.rand(2, 2, 2, *shape, generator=torch.Generator().manual_seed(0))
    assert model(x).shape == (2, 5)
