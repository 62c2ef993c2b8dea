"""The Triton kernels as functions of tensors, on CUDA; the same functions as `models.kernels.native`.

Triton comes with torch's CUDA builds. It is imported on the first use, so that this module can be imported anywhere.
"""

import math
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.kernels.compiler import wanted
from models.kernels.native import Affine, channel_last, dense
from models.surrogates import ArcTan, Gaussian, Rectangular, Sigmoid, Surrogate, Triangular

if TYPE_CHECKING:
    from models.lif import LIFParams
    from models.random import Noise

__all__ = [
    "JOINS",
    "SIMULATES_AGAIN",
    "Affine",
    "affine",
    "available",
    "backward",
    "channel_last",
    "combine",
    "dense",
    "differentiates",
    "fill_normal",
    "simulate",
    "spread",
    "takes",
]

SIMULATES_AGAIN = False
"""Whether `backward` is faster from the currents than from the potentials; here it would write those down as well."""

JOINS = False
"""There is no `join` here: a sum and a layer are two kernels."""

_DTYPES = (torch.float32, torch.bfloat16)
_BLOCK, _NOISY_BLOCK, _GROUP, _WORDS = 1024, 512, 64, 4
_STEP_BITS = 24
# The first cards that round to bf16 in hardware.
_CAPABILITY = (8, 0)


def _interpreted() -> bool:
    """Whether Triton runs in Python on the CPU, to test the kernels on a machine without a GPU."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


@cache
def _importable() -> bool:
    return find_spec("triton") is not None


@cache
def _kernels() -> Any:
    from models.kernels import lif_triton

    return lif_triton


@cache
def _works(device: int) -> bool:
    """Whether Triton can build and launch a kernel here: it needs a recent card and a C compiler."""
    if torch.cuda.get_device_capability(device) < _CAPABILITY:
        return False
    try:
        probe = torch.ones(1, device=f"cuda:{device}")
        return combine(probe, probe, 1.0, 2.0).item() == 3
    except Exception:
        # Triton's failures have no common class, and torch's operations give the same results.
        return False


def _on(device: torch.device) -> bool:
    if not wanted() or not _importable():
        return False
    if _interpreted():
        return device.type == "cpu"
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return _works(torch.cuda.current_device() if device.index is None else device.index)


def available() -> bool:
    """Whether there are kernels on this machine, for its current CUDA device; `compiler.switched_off` is for both."""
    if _interpreted():
        return _on(torch.device("cpu"))
    return torch.cuda.is_available() and _on(torch.device("cuda"))


def takes(current: Tensor) -> bool:
    """Whether the kernels can run a layer with these input currents [T, N, *]."""
    return current.dtype in _DTYPES and _on(current.device)


def _launch(
    kernel: Any, programs: int, block: int, device: torch.device, *arguments: object, **constants: object
) -> None:
    """Run a kernel on the tensors' own device, which need not be the current one."""
    context: AbstractContextManager[object] = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with context:
        if _interpreted():
            kernel[(programs,)](*arguments, BLOCK=block, **constants)
        else:
            # A multiplication and an addition are two roundings unless the kernel says otherwise.
            warps = min(4, block // 128)
            kernel[(programs,)](*arguments, BLOCK=block, num_warps=warps, enable_fp_fusion=False, **constants)


def _tile(length: int, generated: bool) -> int:
    """Elements of one program; few sizes, because each is compiled, and whole groups of noise."""
    if length <= 256:
        return 256
    # With one number of each quarter a thread, noise is made where it is used; a thread of more would exchange them.
    return _NOISY_BLOCK if generated else _BLOCK


def _word(value: int) -> int:
    """The signed 32-bit number with the low bits of `value`: of one type for Triton, whatever the value."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _counter(steps: int, length: int) -> None:
    blocks = -(-length // _GROUP) * (_GROUP // _WORDS)
    if blocks >= 1 << _STEP_BITS or steps > 1 << (32 - _STEP_BITS):
        raise ValueError(f"{length} random numbers a sample over {steps} steps exceed the counter's range")


def _stacked(current: Tensor) -> Tensor:
    """The same values, each time step dense and the steps at one distance."""
    one = current[0]
    if (channel_last(one) or one.is_contiguous()) and (current.shape[0] == 1 or current.stride(0) in (0, one.numel())):
        return current
    return _empty(one if channel_last(one) else one.contiguous(), current.shape[0], current.dtype).copy_(current)


def _empty(one: Tensor, T: int, dtype: torch.dtype) -> Tensor:
    flat = torch.empty(T * one.numel(), dtype=dtype, device=one.device)
    return flat.as_strided((T, *one.shape), (one.numel(), *one.stride()))


def _like(value: Tensor, one: Tensor, T: int, dtype: torch.dtype) -> Tensor:
    """The values in the memory layout of T steps like `one`."""
    if value.dtype == dtype and value.device == one.device and value.stride() == (one.numel(), *one.stride()):
        return value
    return _empty(one, T, dtype).copy_(value)


def simulate(
    current: Tensor,
    noise: "Noise | Tensor | None",
    params: "LIFParams",
    affine: Affine | None,
    with_membrane: bool,
    keep: bool,
    steps: int = 0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """One layer over all its time steps.

    Args:
        current: input currents [T, N, *], float32 or bf16, or [1, N, *] if they are the same in all `steps`.
        noise: numbers [T, N, *], or noise that the kernel draws, or None.
        params: the layer's constants.
        affine: normalises the currents first; needs the channel innermost in memory.
        with_membrane, keep: whether the membrane potential is wanted before noise, and after it for `backward`.
        steps: T; 0 if `current` says it.

    Returns:
        spikes, membrane potential after noise where it is kept, and before it where it is wanted, each [T, N, *].

    Raises:
        ValueError: a normalisation in another memory layout, or more noise than the generator counts.
    """
    current = _stacked(current.detach())
    T = steps or current.shape[0]
    one, dtype = current[0], current.dtype
    last = channel_last(one)
    if affine is not None and not last:
        raise ValueError("a fused normalisation needs the channel innermost in memory")
    spikes, v = _empty(one, T, dtype), _empty(one, T, dtype) if keep else None
    before = _empty(one, T, dtype) if with_membrane else None
    given, generated = None, None
    if isinstance(noise, Tensor):
        given = _like(noise, one, T, torch.float32)
    elif noise is not None and last:
        generated = noise
    elif noise is not None:
        given = _like(noise.tensor(T, one.shape[1:]), one, T, torch.float32)
    _run(current, T, given, generated, params, affine, spikes, v, before)
    return spikes, v, before


def _run(
    current: Tensor,
    T: int,
    given: Tensor | None,
    generated: "Noise | None",
    params: "LIFParams",
    affine: Affine | None,
    spikes: Tensor | None,
    v: Tensor | None,
    before: Tensor | None,
) -> None:
    """Launch the forward kernel, which fills what is wanted of the last three."""
    one = current[0]
    N, size = len(one), one.numel()
    if not size:
        return
    length, channels = size // N, _channels(one)
    key, layer, sigma, samples, draws = 0, 0, 0.0, current, current
    if generated is not None:
        _counter(T, length)
        key, layer, sigma = generated.key, generated.stream, generated.sigma
        samples, draws = _indices(generated.samples, one.device), _indices(generated.draws, one.device)
    block = _tile(length, generated is not None)
    # A tensor that a variant does not touch stands in for those that it has not.
    _launch(
        _kernels().forward,
        N * -(-length // block),
        block,
        one.device,
        *(current, current.stride(0) if current.shape[0] > 1 else 0, size, length, channels),
        *((affine.scale, affine.shift) if affine is not None else (current, current)),
        *(float(params.decay), float(params.v_threshold), float(params.v_reset)),
        *(given if given is not None else current, _word(key), _word(key >> 32), _word(layer)),
        *(samples, draws, float(sigma)),
        *(tensor if tensor is not None else current for tensor in (spikes, v, before)),
        AFFINE=affine is not None,
        GIVEN=given is not None,
        GENERATED=generated is not None,
        FIRE=spikes is not None,
        KEEP=v is not None,
        BEFORE=before is not None,
        T=T,
    )


def _indices(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, torch.int64).contiguous()


def _constants(surrogate: Surrogate) -> tuple[int, float, float] | None:
    """Kind and factors of the surrogates that the kernel knows."""
    if type(surrogate) is Triangular:
        return 0, surrogate.gamma, 1 / surrogate.gamma**2
    if type(surrogate) is Rectangular:
        return 1, surrogate.gamma / 2, 1 / surrogate.gamma
    if type(surrogate) is ArcTan:
        return 2, math.pi / 2 * surrogate.alpha, surrogate.alpha / 2
    if type(surrogate) is Sigmoid:
        return 3, surrogate.alpha, surrogate.alpha
    if type(surrogate) is Gaussian:
        return 4, surrogate.alpha, surrogate.alpha / math.sqrt(2 * math.pi)
    return None


def differentiates(surrogate: Surrogate) -> bool:
    """Whether the kernel knows this surrogate; those with an exponential agree with torch to about 1e-6."""
    return _constants(surrogate) is not None


def backward(
    potentials: Tensor,
    params: "LIFParams",
    affine: Affine | None,
    grad_spikes: Tensor | None,
    grad_membrane: Tensor | None,
    *,
    simulated: bool = True,
    steps: int = 0,
) -> Tensor:
    """Gradient in the input currents, [T, N, *].

    Args:
        potentials: membrane potential after noise [T, N, *]; or, not `simulated`, the currents of a layer without
            noise, from which it is simulated once more.
        params: the layer's constants, with a surrogate that `differentiates` knows.
        affine: what normalised the currents.
        grad_spikes, grad_membrane: gradients in the spikes, and in the membrane potential before noise, or None.
        simulated: what `potentials` are.
        steps: T, where the currents were the same in every step; their gradient is then the sum over time, [1, N, *].
            0 where they were not.
    """
    potentials = potentials if simulated else _stacked(potentials.detach())
    T, one, dtype = steps or potentials.shape[0], potentials[0], potentials.dtype
    v = potentials
    if not simulated:
        # Here bf16 does not round it.
        v = _empty(one, T, torch.float32)
        _run(potentials, T, None, None, params, affine, None, v, None)
    constants = _constants(params.surrogate)
    assert constants is not None
    kind, p, q = constants
    channelwise = grad_spikes is not None and _channelwise(grad_spikes) and channel_last(one)
    if grad_spikes is not None and channelwise:
        grad_spikes = grad_spikes[..., 0, 0].to(dtype).contiguous()
    elif grad_spikes is not None:
        grad_spikes = _like(grad_spikes, one, T, dtype)
    if grad_membrane is not None:
        grad_membrane = _like(grad_membrane, one, T, dtype)
    grad_current = _empty(one, 1 if steps else T, dtype)
    size = one.numel()
    if not size:
        return grad_current
    length, channels = size // len(one), _channels(one)
    block = _tile(length, False)
    programs = len(one) * -(-length // block)
    factors = (affine.back, affine.weight) if affine is not None else (v, v)
    # Summed over time first step first, while the recursion comes from the last: in single precision in between.
    each = _empty(one, T, torch.float32) if steps else grad_current
    _launch(
        _kernels().backward,
        programs,
        block,
        one.device,
        *(v, v if grad_spikes is None else grad_spikes, v if grad_membrane is None else grad_membrane),
        *(size, length, channels, len(one) * channels, *factors),
        *(float(params.decay), float(params.v_threshold), float(params.v_reset), float(p), float(q), each),
        DETACH=params.detach_reset,
        KIND=kind,
        SPIKES=grad_spikes is not None,
        CHANNELWISE=channelwise,
        MEMBRANE=grad_membrane is not None,
        AFFINE=affine is not None and not steps,
        T=T,
    )
    if steps:
        arguments = (each, size, length, channels, *factors, grad_current)
        _launch(_kernels().total, programs, block, one.device, *arguments, AFFINE=affine is not None, T=T)
    return grad_current


def _channelwise(grad: Tensor) -> bool:
    """Whether a gradient [T, N, C, H, W] is one number a channel, as that of a sum over the image is."""
    return grad.dim() == 5 and grad.stride(-1) == grad.stride(-2) == 0


def _channels(one: Tensor) -> int:
    return one.shape[1] if one.dim() > 1 else 1


def fill_normal(out: Tensor, key: int, stream: int, samples: Tensor, draws: Tensor) -> None:
    """Standard normal numbers into a contiguous float32 [T, N, L]; `samples` and `draws` are [N].

    Raises:
        ValueError: more numbers than the generator counts.
    """
    T, N, L = out.shape
    _counter(T, L)
    if not out.numel():
        return
    block = _tile(L, True)
    _launch(
        _kernels().fill_normal,
        N * -(-L // block),
        block,
        out.device,
        *(out, N * L, L, _word(key), _word(key >> 32), _word(stream)),
        *(_indices(samples, out.device), _indices(draws, out.device)),
        T=T,
    )


def affine(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Affine:
    """A batch normalisation with these statistics, float32 [C] each, as its factors."""
    weight, bias, mean, variance = (tensor.detach().contiguous() for tensor in (weight, bias, mean, variance))
    scale, shift, back = (torch.empty_like(weight) for _ in range(3))
    _launch(
        _kernels().affine,
        -(-len(weight) // 256),
        256,
        weight.device,
        *(weight, bias, mean, variance, len(weight), scale, shift, back),
        EPS=float(eps),
    )
    return Affine(scale, shift, back, weight)


def combine(x: Tensor, y: Tensor, a: float, b: float) -> Tensor:
    """a * x + b * y, for dense tensors of one layout."""
    out = torch.empty_like(x)
    size = x.numel()
    if size:
        _launch(_kernels().combine, -(-size // _BLOCK), _BLOCK, x.device, x, y, float(a), float(b), size, out)
    return out


def spread(grad: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
    """a * grad and b * grad, for a dense tensor."""
    first, second = torch.empty_like(grad), torch.empty_like(grad)
    size = grad.numel()
    if size:
        programs = -(-size // _BLOCK)
        _launch(_kernels().spread, programs, _BLOCK, grad.device, grad, float(a), float(b), size, first, second)
    return first, second
