"""The Triton kernels against torch's operations, in Triton's interpreter or on CUDA; run by test_gpu_kernels.py.

What they must equal is always computed by torch on the CPU, bit for bit where nothing else is said.
"""

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from models.kernels import gpu, native
from models.kernels.compiler import switched_off
from models.lif import LIFParams, bptt, simulate
from models.random import Noise
from models.surrogates import ArcTan, Gaussian, Rectangular, Sigmoid, Surrogate, Triangular

INTERPRETED = os.environ.get("TRITON_INTERPRET", "") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
PLAIN = LIFParams(0.5, 1.0, 0.0, False, Triangular())
LAYERS = [PLAIN, LIFParams(0.99, 0.3, -0.5, True, Triangular(0.7)), LIFParams(0.0, 1.0, 0.2, False, Triangular(2.0))]
# More than one tile, and no whole number of tiles, of noise's groups or of vectors.
SHAPES = {"last": (2, 6, 15, 14), "plain": (2, 3, 5, 7), "flat": (3, 1100), "expanded": (2, 8, 4, 4), "one": (1, 1)}


def one_rounding(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """x * y + z in float32, rounded once; NumPy, and so the interpreter, rounds twice.

    The product is exact in double precision. The sum is rounded to an odd last bit, after which rounding to single
    precision is the rounding of the exact sum (Boldo and Melquiond, 2008).
    """
    product, addend = x.astype(np.float64) * y.astype(np.float64), z.astype(np.float64)
    total = np.atleast_1d(product + addend)
    part = total - product
    error = (product - (total - part)) + (addend - part)
    even = (total.view(np.int64) & 1) == 0
    neighbour = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & even, neighbour, total).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def exact_interpreter() -> Iterator[None]:
    if not INTERPRETED:
        yield
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def fma(self: object, x: TensorHandle, y: TensorHandle, z: TensorHandle) -> TensorHandle:
        return TensorHandle(one_rounding(x.data, y.data, z.data), z.dtype.scalar)

    own = InterpreterBuilder.create_fma
    InterpreterBuilder.create_fma = fma
    yield
    InterpreterBuilder.create_fma = own


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def arranged(values: Tensor, layout: str, T: int) -> Tensor:
    """[T, N, *] in a memory layout that networks produce."""
    if layout == "last":
        return values.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, values.shape[:2])
    if layout == "expanded":
        return values[0].to(memory_format=torch.channels_last).expand(T, *values.shape[1:])
    return values


def current_of(layout: str, T: int) -> Tensor:
    return arranged(0.5 + 1.1 * random(T, *SHAPES[layout]), layout, T)


def undrawn(n: int, sigma: float = 0.63) -> Noise:
    samples = torch.tensor([7, 2**32 - 1, 12345, 2**31])[:n]
    return Noise(sigma, 0xF123456789ABCDEF, 5, samples, torch.arange(n) * 3)


def reference_noise(noise: Noise, T: int, shape: tuple[int, ...]) -> Tensor:
    count = int(np.prod(shape))
    order = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    out = noise.reference(T, count, -(-count // 64)).mul_(noise.sigma).view(T, len(noise.samples), *order)
    return out.movedim(-1, 2) if len(shape) == 3 else out


def there(value: Tensor | Noise | None) -> Tensor | Noise | None:
    """On the kernels' device, in the same memory layout."""
    if value is None:
        return None
    if isinstance(value, Noise):
        return value._replace(samples=value.samples.to(DEVICE), draws=value.draws.to(DEVICE))
    if value.dim() and value.stride(0) == 0:
        return value[0].to(DEVICE).expand(value.shape)
    return value.to(DEVICE)


def moved(value: Tensor) -> Tensor:
    out = there(value)
    assert isinstance(out, Tensor)
    return out


def same(got: Tensor | None, expected: Tensor | None) -> None:
    assert got is not None
    assert expected is not None
    assert got.device.type == DEVICE.type
    assert torch.equal(got.cpu(), expected), float((got.cpu() - expected).abs().max())


def test_they_are_in_use() -> None:
    assert gpu.available()
    assert gpu.takes(torch.zeros(2, 3, device=DEVICE))
    assert gpu.takes(torch.zeros(2, 3, device=DEVICE, dtype=torch.bfloat16))
    assert not gpu.takes(torch.zeros(2, 3, device=DEVICE, dtype=torch.float64))
    with switched_off():
        assert not gpu.available()


@pytest.mark.parametrize("length", [1, 63, 64, 65, 256, 257, 513, 1100])
@pytest.mark.parametrize("T", [1, 3])
def test_noise_is_the_reference_s(length: int, T: int) -> None:
    noise = undrawn(4)
    out = torch.empty(T, 4, length, device=DEVICE)
    gpu.fill_normal(out, noise.key, noise.stream, noise.samples, noise.draws)
    same(out, noise.reference(T, length, -(-length // 64)))


def test_noise_of_samples_that_are_not_contiguous() -> None:
    samples, draws = torch.arange(8)[::2], torch.tensor(3).expand(4)
    out = torch.empty(1, 4, 70, device=DEVICE)
    gpu.fill_normal(out, 1, 2, samples, draws)
    same(out, Noise(1.0, 1, 2, samples.contiguous(), draws.contiguous()).reference(1, 70, 2))


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("noisy", ["none", "given", "generated"])
@pytest.mark.parametrize("T", [1, 4])
def test_forward(layout: str, noisy: str, T: int) -> None:
    for number, params in enumerate(LAYERS):
        current, shape = current_of(layout, T), SHAPES[layout]
        noise: Noise | Tensor | None = None
        given: Tensor | None = None
        if noisy == "generated":
            noise = undrawn(shape[0])
            given = reference_noise(noise, T, shape[1:])
        elif noisy == "given":
            noise = given = 0.6 * random(T, *shape, seed=1)
        spikes, v, before = simulate(current, given, params, True)
        got = gpu.simulate(moved(current), there(noise), params, None, number != 1, number != 2)
        same(got[0], spikes)
        for part, expected, asked in ((got[1], v, number != 2), (got[2], before, number != 1)):
            assert (part is not None) == asked
            if part is not None:
                same(part, expected)
                assert part.stride() == got[0].stride()
        if layout in ("last", "expanded"):
            assert native.channel_last(got[0][0])


@pytest.mark.parametrize("how", ["crossed", "sliced batch", "sliced channels"])
def test_forward_of_currents_with_gaps(how: str) -> None:
    T, whole = 3, random(3, 4, 6, 5, 5)
    if how == "crossed":
        current = whole.transpose(0, 1).contiguous().transpose(0, 1)
    elif how == "sliced batch":
        current = arranged(whole, "last", T)[:, :2]
    else:
        current = whole[:, :, ::2]
    got = gpu.simulate(moved(current), None, PLAIN, None, True, True)
    for part, expected in zip(got, simulate(current, None, PLAIN, True), strict=True):
        same(part, expected)


def norm_of(channels: int) -> torch.nn.BatchNorm2d:
    norm = torch.nn.BatchNorm2d(channels).requires_grad_(False).eval()
    for number, tensor in enumerate((norm.weight, norm.bias, norm.running_mean)):
        assert tensor is not None
        tensor.copy_(random(channels, seed=number + 5))
    assert norm.running_var is not None
    norm.running_var.copy_(random(channels, seed=9).abs() + 0.01)
    return norm


def affine_of(norm: torch.nn.BatchNorm2d) -> gpu.Affine:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return gpu.affine(*(tensor.to(DEVICE) for tensor in tensors), norm.eps)


@pytest.mark.skipif(not native.available(), reason="no C kernels on this machine")
@pytest.mark.parametrize("eps", [1e-5, 0.0, 0.001])
def test_the_factors_of_a_normalisation_are_those_of_the_c_kernel(eps: float) -> None:
    weight, bias, mean = (random(301, seed=seed) for seed in range(3))
    variance = random(301, seed=3).square() + 1e-12
    expected = native.affine(weight, bias, mean, variance, eps)
    got = gpu.affine(*(tensor.to(DEVICE) for tensor in (weight, bias, mean, variance)), eps)
    for a, b in zip(got, expected, strict=True):
        same(a, b)


@pytest.mark.parametrize("layout", ["last", "expanded"])
@pytest.mark.parametrize("noisy", [False, True])
def test_forward_and_backward_with_a_normalisation_inside(layout: str, noisy: bool) -> None:
    T, shape = 3, SHAPES[layout]
    current, norm = current_of(layout, T), norm_of(shape[1])
    steps = current.detach().contiguous().flatten(0, 1).to(memory_format=torch.channels_last).requires_grad_()
    normalised = norm(steps).unflatten(0, (T, shape[0]))
    noise = undrawn(shape[0]) if noisy else None
    given = reference_noise(noise, T, shape[1:]) if noise else None
    expected = simulate(normalised.detach(), given, PLAIN, True)
    affine = affine_of(norm)
    got = gpu.simulate(moved(current), there(noise), PLAIN, affine, True, True)
    for part, whole in zip(got, expected, strict=True):
        same(part, whole)
    v = expected[1]
    grad = arranged(random(*v.shape, seed=3), "last", T)
    inside = bptt(v, PLAIN, lambda _, x: PLAIN.surrogate.grad(x), grad)
    (outside,) = torch.autograd.grad(normalised, steps, inside)
    outside = outside.unflatten(0, (T, shape[0]))
    assert got[1] is not None
    same(gpu.backward(got[1], PLAIN, affine, moved(grad), None), outside)
    if noise is None:
        same(gpu.backward(moved(current), PLAIN, affine, moved(grad), None, simulated=False), outside)


SURROGATES: list[Surrogate] = [Triangular(0.7), Rectangular(1.3), ArcTan(2.0), Sigmoid(4.0), Gaussian(1.4)]


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda surrogate: surrogate.name)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("of", ["spikes", "membrane", "both"])
def test_backward(surrogate: Surrogate, detach: bool, of: str) -> None:
    for layout, T, reset in (("last", 4, 0.0), ("flat", 3, -0.3), ("one", 1, 0.2)):
        params = LIFParams(0.7, 0.8, reset, detach, surrogate)
        assert gpu.differentiates(surrogate)
        current = current_of(layout, T)
        _, v, _ = simulate(current, None, params, False)
        spikes = random(*current.shape, seed=4) if of != "membrane" else None
        membrane = random(*current.shape, seed=5) if of != "spikes" else None
        grads = [moved(grad) if grad is not None else None for grad in (spikes, membrane)]
        got = gpu.backward(moved(v), params, None, *grads)
        if isinstance(surrogate, Sigmoid | Gaussian):
            # The device's exponential is its own; torch's in single precision is no closer to the truth.
            doubles = [grad.double() if grad is not None else None for grad in (spikes, membrane)]
            expected = bptt(v.double(), params, lambda _, x, s=surrogate: s.grad(x), *doubles)
            assert torch.allclose(got.cpu().double(), expected, rtol=1e-5, atol=3e-6)
        else:
            same(got, bptt(v, params, lambda _, x, s=surrogate: s.grad(x), spikes, membrane))


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_currents_that_are_the_same_in_every_step(noisy: bool, normed: bool) -> None:
    """The gradient is the sum over time, first step first."""
    T, shape = 4, SHAPES["last"]
    current, norm = arranged(0.5 + 1.1 * random(1, *shape), "last", 1), norm_of(shape[1])
    affine = affine_of(norm) if normed else None
    noise = undrawn(shape[0]) if noisy else None
    repeated = current.expand(T, *shape)
    got = gpu.simulate(moved(current), there(noise), PLAIN, affine, True, True, T)
    for part, expected in zip(got, gpu.simulate(moved(repeated), there(noise), PLAIN, affine, True, True), strict=True):
        assert expected is not None
        same(part, expected.cpu())
    v = got[1]
    assert v is not None
    grad = arranged(random(*v.shape, seed=3), "last", T)
    total, *later = gpu.backward(v, PLAIN, None, moved(grad), None).cpu()
    for step in later:
        total = total + step
    if affine is not None:
        total = total * affine.back.cpu().view(-1, 1, 1) * affine.weight.cpu().view(-1, 1, 1)
    same(gpu.backward(v, PLAIN, affine, moved(grad), None, steps=T), total.unsqueeze(0))
    if not noisy:
        again = gpu.backward(moved(current), PLAIN, affine, moved(grad), None, simulated=False, steps=T)
        same(again, total.unsqueeze(0))


@pytest.mark.parametrize("shape", [(2, 6, 15, 14), (2, 300, 2, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_that_is_one_number_a_channel(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    v = arranged(0.5 + random(3, *shape), "last", 3).to(dtype)
    grad = random(3, *shape[:2], 1, 1, seed=3).to(dtype)
    got = gpu.backward(moved(v), PLAIN, None, moved(grad).expand(v.shape), None)
    same(got, gpu.backward(moved(v), PLAIN, None, moved(arranged(grad.expand(v.shape), "last", 3)), None).cpu())


def test_bf16_is_a_storage_format() -> None:
    """The float32 results for the same rounded currents, themselves rounded once."""
    T, shape = 4, SHAPES["last"]
    current = current_of("last", T).bfloat16()
    noise, norm = undrawn(shape[0]), norm_of(shape[1])
    affine = affine_of(norm)
    half = gpu.simulate(moved(current), there(noise), PLAIN, affine, True, True)
    full = gpu.simulate(moved(current.float()), there(noise), PLAIN, affine, True, True)
    # The interpreter cuts off where the hardware rounds to the nearest.
    tolerance = 2.0**-7 if INTERPRETED else 0.0
    for a, b in zip(half, full, strict=True):
        assert a is not None
        assert b is not None
        assert a.dtype == torch.bfloat16
        assert torch.allclose(a.float(), b.bfloat16().float(), rtol=tolerance, atol=0)
    assert torch.equal(half[0].float(), full[0])
    v, grad = half[1], arranged(random(T, *shape, seed=6), "last", T).bfloat16()
    assert v is not None
    a = gpu.backward(v, PLAIN, affine, moved(grad), None)
    b = gpu.backward(v.float(), PLAIN, affine, moved(grad.float()), None)
    assert a.dtype == torch.bfloat16
    assert torch.allclose(a.float(), b.bfloat16().float(), rtol=tolerance, atol=0)


def test_sums_of_two_branches() -> None:
    x, y = arranged(random(2, *SHAPES["last"]), "last", 2), arranged(random(2, *SHAPES["last"], seed=1), "last", 2)
    same(gpu.combine(moved(x), moved(y), 0.3, -1.7), 0.3 * x + -1.7 * y)
    for got, expected in zip(gpu.spread(moved(x), 0.3, -1.7), (0.3 * x, -1.7 * x), strict=True):
        same(got, expected)


def test_subnormal_numbers_are_kept() -> None:
    current = torch.full((2, 1, 5), 2.0**-140)
    for part, expected in zip(
        gpu.simulate(moved(current), None, PLAIN, None, True, True), simulate(current, None, PLAIN, True), strict=True
    ):
        same(part, expected)
    same(gpu.combine(moved(current), moved(current), 0.5, 0.25), 0.5 * current + 0.25 * current)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="channel innermost"):
        gpu.simulate(torch.zeros(2, 2, 3, 4, 4, device=DEVICE), None, PLAIN, affine_of(norm_of(3)), False, True)
    with pytest.raises(ValueError, match="counter"):
        gpu.fill_normal(torch.empty(257, 1, 1, device=DEVICE), 0, 0, torch.zeros(1), torch.zeros(1))


def test_nothing_is_a_batch_too() -> None:
    empty = torch.zeros(2, 0, 3, 4, 4, device=DEVICE)
    spikes, v, before = gpu.simulate(empty, None, PLAIN, None, False, True)
    assert spikes.shape == empty.shape
    assert v is not None
    assert before is None
    assert gpu.backward(v, PLAIN, None, spikes, None).shape == empty.shape
