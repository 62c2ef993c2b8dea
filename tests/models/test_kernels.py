"""The compiled kernels give the bits of the torch operations that they stand for."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import environment
from torch import Tensor, nn

from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy
from models import LIF, NoisyLIF, noise_stream
from models.kernels import compiler, native
from models.lif import LIFParams, bptt, lif, simulate
from models.neurons import record_membrane, spiking_layers
from models.norm import fused
from models.random import Noise
from models.surrogates import ArcTan, Gaussian, Rectangular, Sigmoid, Triangular
from models.time import merged
from models.vgg import VGG11
from models.wrn import WRN16x4

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernels here: {compiler.compiled()[1]}")

KNOWN = (Triangular, Rectangular, ArcTan)


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """The same bits, NaN included, whatever the layout."""
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())


@st.composite
def layers(draw: st.DrawFn) -> LIFParams:
    return LIFParams(
        decay=draw(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.99, 1.0])),
        v_threshold=draw(st.sampled_from([0.3, 1.0, 2.0])),
        v_reset=draw(st.sampled_from([0.0, -0.5, 0.2])),
        detach_reset=draw(st.booleans()),
        surrogate=draw(st.sampled_from(KNOWN))(draw(st.floats(0.3, 6))),
    )


def currents(T: int, shape: tuple[int, ...], layout: str, seed: int) -> Tensor:
    """Input currents [T, *shape] in one of the layouts that networks produce."""
    generator = torch.Generator().manual_seed(seed)
    steps = 1 if layout == "constant" else T
    x = 0.6 + 1.2 * torch.randn(steps, *shape, generator=generator)
    if len(shape) == 4 and layout != "plain":
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (steps, shape[0]))
    if layout == "crossed":
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    return x.expand(T, *shape)


SHAPES = st.sampled_from([(3,), (2, 5), (3, 600), (2, 3, 4, 5), (2, 16, 8, 8), (1, 7, 9, 13)])
LAYOUTS = st.sampled_from(["plain", "channels last", "constant", "crossed"])


@settings(max_examples=150)
@given(layers(), st.integers(1, 6), SHAPES, LAYOUTS, st.booleans(), st.booleans(), st.integers(0, 10_000))
def test_forward_and_backward_are_the_same_bits(
    params: LIFParams, T: int, shape: tuple[int, ...], layout: str, noisy: bool, watched: bool, seed: int
) -> None:
    current = currents(T, shape, layout, seed)
    noise = 0.6 * torch.randn(T, *shape, generator=torch.Generator().manual_seed(seed + 1)) if noisy else None
    ours = native.simulate(current, noise, params, None, watched, True)
    plain = simulate(current, noise, params, watched)
    assert all(same(a, b) for a, b in zip(ours, plain, strict=True))
    assert native.simulate(current, noise, params, None, watched, False)[1] is None
    v = ours[1]
    assert v is not None
    grad = torch.randn(T, *shape, generator=torch.Generator().manual_seed(seed + 2))
    membrane = grad.flip(0) if watched else None
    if len(shape) == 4 and seed % 2:
        # What the mean over an image hands back.
        grad = grad[..., :1, :1].expand(grad.shape)
    expected = bptt(v, params, lambda _, x: params.surrogate.grad(x), grad, membrane)
    assert same(native.backward(v, params, None, grad, membrane), expected)
    total = functools.reduce(torch.add, expected)
    assert same(native.backward(v, params, None, grad, membrane, steps=T)[0], total)
    if not noisy:
        again = native.backward(current, params, None, grad, membrane, simulated=False)
        assert same(again, expected)
    if layout == "constant":
        once = native.simulate(current[:1], noise, params, None, watched, True, T)
        assert all(same(a, b) for a, b in zip(once, ours, strict=True))
        if not noisy:
            again = native.backward(current[:1], params, None, grad, membrane, simulated=False, steps=T)
            assert same(again[0], total)


@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**63))
def test_noise_is_the_same_number_with_and_without_a_compiler(count: int, T: int, n: int, key: int) -> None:
    samples, draws = torch.arange(n) * 1_000_003 % 2**32, torch.arange(n) * 7 % 2**32
    noise = Noise(1.0, key, 3, samples, draws)
    assert same(noise.tensor(T, (count,)), noise.reference(T, count, -(-count // 64)))


def test_rows_of_any_type_and_stride_are_read_as_numbers() -> None:
    usual = Noise(1.0, 5, 0, torch.arange(0, 8, 2), torch.full((4,), 3)).tensor(2, (70,))
    strided = Noise(1.0, 5, 0, torch.arange(8)[::2], torch.tensor(3).expand(4)).tensor(2, (70,))
    narrow = Noise(1.0, 5, 0, torch.arange(0, 8, 2, dtype=torch.int32), torch.full((4,), 3)).tensor(2, (70,))
    assert torch.equal(usual, strided)
    assert torch.equal(usual, narrow)
    params, current = LIFParams(0.5, 1.0, 0.0, False, Triangular()), currents(2, (4, 70), "plain", 0)
    noises = (
        Noise(1.0, 5, 0, samples, torch.full((4,), 3)) for samples in (torch.arange(0, 8, 2), torch.arange(8)[::2])
    )
    a, b = (native.simulate(current, noise, params, None, False, True)[1] for noise in noises)
    assert same(a, b)


def test_more_numbers_than_the_counter_tells_apart_are_refused() -> None:
    noise = Noise(1.0, 5, 0, torch.arange(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="exceed the counter's range"):
        noise.tensor(257, (3,))
    params = LIFParams(0.5, 1.0, 0.0, False, Triangular())
    with pytest.raises(ValueError, match="exceed the counter's range"):
        native.simulate(torch.zeros(257, 2, 3), noise, params, None, False, False)


def test_an_infinite_current_fires_and_is_reset_on_every_path() -> None:
    params = LIFParams(0.5, 1.0, 0.0, False, Triangular())
    current = torch.tensor([[[torch.inf, -torch.inf, torch.nan]]]).expand(3, 1, 3)
    ours, plain = native.simulate(current, None, params, None, False, True), simulate(current, None, params, False)
    assert same(ours[0], plain[0])
    assert same(ours[1], plain[1])
    assert ours[0][:, 0, 0].tolist() == [1, 1, 1]


def test_a_graph_made_with_kernels_may_be_walked_without() -> None:
    norm, neuron = settled_norm(nn.BatchNorm2d, 8), LIF()
    x = currents(1, (3, 8, 5, 6), "channels last", 1).clone().requires_grad_()
    grads = []
    for off in (False, True):
        value = (neuron(x, norm, 4) * torch.arange(6.0)).sum()
        with compiler.switched_off() if off else nullcontext():
            grads.append(torch.autograd.grad(value, x)[0])
    assert torch.allclose(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (200,), (3, 5, 7), (64, 8, 8)])
@pytest.mark.parametrize("watched", [False, True])
def test_noise_drawn_inside_is_the_noise_drawn_before(shape: tuple[int, ...], watched: bool) -> None:
    params = LIFParams(0.5, 1.0, 0.0, False, Triangular())
    current = currents(4, (6, *shape), "channels last", 0)
    noise = Noise(0.63, 99, 2, torch.tensor([5, 3, 8, 1, 0, 70]), torch.tensor([0, 0, 1, 1, 2, 9]))
    inside = native.simulate(current, noise, params, None, watched, True)
    before = simulate(current, noise.tensor(4, shape), params, watched)
    assert all(same(a, b) for a, b in zip(inside, before, strict=True))


def settled_norm(kind: type[nn.Module], channels: int) -> nn.Module:
    """A normalisation in eval mode with statistics of its own."""
    generator = torch.Generator().manual_seed(channels)
    norm = kind(channels).eval().requires_grad_(False)
    for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.1)):
        getattr(norm, name).copy_(low + torch.rand(channels, generator=generator))
    return norm


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 64, 100])
@pytest.mark.parametrize("constant", [False, True])
def test_a_fused_normalisation_gives_torch_s_bits(channels: int, constant: bool) -> None:
    norm, neuron = settled_norm(nn.BatchNorm2d, channels), LIF()
    current = currents(4, (3, channels, 5, 6), "constant" if constant else "channels last", 1)
    x = current[:1].clone() if constant else current.clone()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert fused(norm, a) is not None
    results = neuron(a, norm, 4), neuron(merged(norm, b).expand(current.shape))
    assert same(*results)
    weights = torch.randn(results[0].shape, generator=torch.Generator().manual_seed(3))
    grads = [
        torch.autograd.grad((spikes * weights).sum(), leaf)[0] for spikes, leaf in zip(results, (a, b), strict=True)
    ]
    assert torch.equal(*grads)
    assert 0 < float(results[0].detach().mean()) < 1


def test_normalisation_runs_as_it_is_where_it_must() -> None:
    current = currents(4, (3, 8, 5, 6), "channels last", 1)
    norm = settled_norm(nn.BatchNorm2d, 8)
    assert fused(norm.train(), current) is None
    assert fused(norm.eval().requires_grad_(True), current) is None
    assert fused(norm.requires_grad_(False), current.contiguous()) is None
    assert fused(norm, current.double()) is None
    assert fused(nn.Identity().eval(), current) is None
    for hook in (norm.register_forward_hook(lambda *_: None), norm.register_forward_pre_hook(lambda *_: None)):
        assert fused(norm, current) is None
        hook.remove()
    assert fused(settled_norm(nn.BatchNorm2d, 4), current) is None
    assert fused(norm, current) is not None
    norm.forward = lambda x: x  # type: ignore[method-assign]
    assert fused(norm, current) is None


def test_statistics_of_any_stride_are_read_in_order() -> None:
    current = currents(4, (3, 8, 5, 6), "channels last", 1)
    norm, strided = settled_norm(nn.BatchNorm2d, 8), settled_norm(nn.BatchNorm2d, 8)
    wide = torch.zeros(8, 3)
    wide[:, 0] = norm.weight  # type: ignore[assignment]
    strided.weight = nn.Parameter(wide[:, 0], requires_grad=False)
    norm.running_mean = torch.full((8,), 0.25)
    strided.running_mean = torch.tensor(0.25).expand(8)
    assert torch.equal(LIF()(current, norm), LIF()(current, strided))


def test_noise_of_one_step_is_no_noise_of_many() -> None:
    params = LIFParams(0.5, 1.0, 0.0, False, Triangular())
    with pytest.raises(RuntimeError):
        native.simulate(currents(4, (2, 3), "plain", 0), torch.zeros(1, 2, 4), params, None, False, False)
    one = torch.full((1, 2, 3), 0.5)
    ours = native.simulate(currents(4, (2, 3), "plain", 0), one, params, None, False, True)[1]
    assert same(ours, simulate(currents(4, (2, 3), "plain", 0), one.expand(4, 2, 3), params, False)[1])


class Proportional(LIF):
    """Noise that looks at the currents."""

    def noise(self, current: Tensor) -> Tensor:
        return 0.3 * current


def test_noise_that_looks_at_currents_sees_them_normalised() -> None:
    norm = settled_norm(nn.BatchNorm2d, 8)
    current = currents(4, (3, 8, 5, 6), "channels last", 1)
    assert same(Proportional()(current, norm), Proportional()(merged(norm, current)))


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    x = currents(3, (2, 8), "plain", 0).clone().requires_grad_()
    spikes, _ = lif(x, LIFParams(0.5, 1.0, 0.0, False, Triangular()))
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(spikes.sum(), x, create_graph=True)


@pytest.mark.parametrize("T", [1, 2, 4, 5, 20])
@pytest.mark.parametrize("channels", [1, 16])
def test_a_static_image_gives_the_bits_of_the_image_at_every_step(T: int, channels: int) -> None:
    """Stored results were measured that way: the normalised current repeated, its gradients summed by autograd."""
    norm = settled_norm(nn.BatchNorm2d, channels)
    x = currents(1, (3, channels, 5, 6), "channels last", 1).clone()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(T, 3, channels, 5, 6, generator=torch.Generator().manual_seed(3))
    once = torch.autograd.grad((LIF()(a, norm, T) * weights).sum(), a)[0]
    each = torch.autograd.grad((LIF()(merged(norm, b).expand(T, *x.shape[1:])) * weights).sum(), b)[0]
    assert torch.equal(once, each)


class Half(LIF):
    """Adds half to every current; its noise is a subclass's own."""

    def noise(self, current: Tensor) -> Tensor:
        return torch.full(current.shape, 0.5)


class LoudHalf(NoisyLIF):
    """The same on top of a noisy layer."""

    def noise(self, current: Tensor) -> Tensor:
        return torch.full(current.shape, 0.5)


@pytest.mark.parametrize("kind", [Half, LoudHalf])
def test_noise_of_a_subclass_s_own_is_used(kind: Callable[[], LIF]) -> None:
    assert bool((kind()(torch.full((1, 2, 3), 0.6)) == 1).all())


def test_exponential_surrogates_are_torch_s_own() -> None:
    for surrogate in (Sigmoid(), Gaussian()):
        assert not native.differentiates(surrogate)
        x = currents(3, (2, 8), "plain", 0).clone().requires_grad_()
        params = LIFParams(0.5, 1.0, 0.0, False, surrogate)
        spikes, _ = lif(x, params)
        (grad,) = torch.autograd.grad(spikes.sum(), x)
        v = simulate(x.detach(), None, params, False)[1]
        assert torch.equal(grad, bptt(v, params, lambda _, x: surrogate.grad(x), torch.ones_like(v)))  # noqa: B023


def lively(build: Callable[..., nn.Module], neuron: Callable[[], LIF], side: int) -> nn.Module:
    """A network whose layers fire, in eval mode, channels last."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(10, (3, side, side), neuron, T=3, mean=(0.5,) * 3, std=(0.25,) * 3)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 2.0)
                nn.init.constant_(module.bias, 0.7)
            elif isinstance(module, nn.Linear):
                module.weight.data.mul_(6)
        model.train()
        with torch.no_grad():
            model.to(memory_format=torch.channels_last)(torch.rand(16, 3, side, side))
    return model.eval()


_NETWORK = """
import sys, torch
sys.path[:0] = {path!r}
from test_kernels import lively, evaluated
from models import LIF, NoisyLIF
from models.vgg import VGG11
from models.wrn import WRN16x4
torch.save(evaluated({build}, {neuron}, {side}, {half}), {file!r})
"""


def evaluated(build: Callable[..., nn.Module], neuron: Callable[[], LIF], side: int, half: bool) -> list[Tensor]:
    """Logits, input gradient and potentials of a network, in bfloat16 or not."""
    model = lively(build, neuron, side)
    x = torch.rand(5, 3, side, side, generator=torch.Generator().manual_seed(1))
    x = x.contiguous(memory_format=torch.channels_last)
    rounded = torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
    with frozen(model), noise_stream(model, 5, torch.arange(5)), rounded:
        found = input_gradient(model, x, torch.arange(5), cross_entropy)
        with record_membrane(model) as membrane, torch.no_grad():
            model(x)
    return [found.logits, found.grad, *membrane.values()]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("build", "neuron", "side"), [(WRN16x4, LIF, 16), (WRN16x4, NoisyLIF, 16), (VGG11, LIF, 8)], ids=str
)
def test_a_network_has_one_output_with_and_without_kernels(
    build: Callable[..., nn.Module], neuron: type[LIF], side: int, half: bool, tmp_path: Path
) -> None:
    file, path = str(tmp_path / "plain.pt"), [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = _NETWORK.format(path=path, build=build.__name__, neuron=neuron.__name__, side=side, half=half, file=file)
    switched = {**environment(), compiler.SWITCH: "torch"}
    subprocess.run([sys.executable, "-c", code], check=True, env=switched, timeout=300)
    plain = torch.load(file, weights_only=True)
    ours = evaluated(build, neuron, side, half)
    assert float(ours[1].abs().max()) > 0
    assert len(ours) == 2 + len(spiking_layers(lively(build, neuron, side)))
    assert [same(a, b) for a, b in zip(ours, plain, strict=True)] == [True] * len(ours)


def test_half_precision_is_the_rounded_layer() -> None:
    params = LIFParams(0.5, 1.0, 0.0, False, Triangular())
    current = currents(4, (2, 16, 8, 8), "channels last", 5).bfloat16()
    spikes, v, before = native.simulate(current, None, params, None, True, True)
    exact = native.simulate(current.float(), None, params, None, True, True)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), exact[0])
    for half, full in ((v, exact[1]), (before, exact[2])):
        assert half is not None and full is not None and torch.equal(half, full.bfloat16())
    grad = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert v is not None
    found = native.backward(v, params, None, grad, None)
    expected = native.backward(v.float(), params, None, grad.float(), None)
    assert torch.equal(found, expected.bfloat16())


def test_a_machine_without_a_compiler_runs_and_says_why(tmp_path: Path) -> None:
    code = "from models.kernels import compiler, native; print(native.available(), compiler.compiled()[1])"
    python = {**environment(), "PATH": str(tmp_path), "CC": "", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=python, check=True)
    assert done.stdout.strip() == "False no C compiler (gcc or clang) on the PATH"
    broken = tmp_path / "gcc"
    broken.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo broken && exit\necho 'lif.c: error: no luck' >&2; exit 1\n"
    )
    broken.chmod(0o755)
    python["PATH"] = os.pathsep.join([str(tmp_path), "/bin", "/usr/bin"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=python, check=True)
    assert done.stdout.startswith("False")
    assert "no luck" in done.stdout


def test_kernels_are_built_once_and_only_in_a_folder_of_one_s_own(tmp_path: Path) -> None:
    code = "from models.kernels import compiler; print(compiler.compiled()[0]._name)"
    python = {**environment(), "XDG_CACHE_HOME": str(tmp_path)}
    python.pop(compiler.SWITCH, None)
    names = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=python, check=True).stdout
        for _ in range(2)
    }
    assert len(names) == 1
    built = Path(names.pop().strip())
    assert built.parent == tmp_path / "snn-bench"
    assert list(built.parent.iterdir()) == [built]
