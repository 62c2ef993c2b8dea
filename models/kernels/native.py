"""The C kernels as functions of tensors, on the CPU."""

import math
from ctypes import c_double, c_float, c_int, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from models.kernels.compiler import compiled, wanted
from models.surrogates import ArcTan, Rectangular, Surrogate, Triangular

if TYPE_CHECKING:
    from models.lif import LIFParams
    from models.random import Noise

SIMULATES_AGAIN = True
"""Whether `backward` is faster from the currents than from the potentials."""
JOINS = True
"""Whether there are `join` and `join_backward`."""

_SUFFIX = {torch.float32: "f32", torch.bfloat16: "b16"}
_LEAST_PARALLEL = 1 << 14
_BLOCK = 1024


class Affine(NamedTuple):
    """A batch normalisation with fixed statistics, one value a channel, float32: scale * x + shift, rounded once.

    The gradient is multiplied by `back` and then by `weight`, as torch does.
    """

    scale: Tensor
    shift: Tensor
    back: Tensor
    weight: Tensor


@cache
def _library() -> Any:
    library, _ = compiled()
    if library is None:
        return None
    layer = [c_float] * 3
    for suffix in _SUFFIX.values():
        forward, backward = getattr(library, f"forward_{suffix}"), getattr(library, f"backward_{suffix}")
        forward.argtypes = [
            *(c_void_p, c_int64, c_int, c_int64, c_int64, c_int64, c_void_p, c_void_p, *layer, c_void_p, c_int),
            *(c_uint64, c_uint32, c_void_p, c_void_p, c_float, c_void_p, c_void_p, c_void_p, c_int),
        ]
        backward.argtypes = [
            *(c_void_p, c_void_p, c_int64, c_void_p, c_void_p, c_void_p, c_int, c_void_p),
            *(c_int, c_int64, c_int64, c_int64, c_void_p, c_void_p, *layer),
            *(c_int, c_int, c_float, c_float, c_int, c_void_p, c_void_p, c_int),
        ]
        forward.restype = backward.restype = None
    for suffix in _SUFFIX.values():
        forward, backward = getattr(library, f"join_forward_{suffix}"), getattr(library, f"join_backward_{suffix}")
        sizes = [c_int, c_int64, c_int64, c_int64]
        forward.argtypes = [
            *(c_void_p, c_void_p, c_float, c_float, *sizes, c_void_p, c_void_p, *layer, c_void_p, c_void_p, c_int),
        ]
        backward.argtypes = [
            *(c_void_p, c_void_p, c_void_p, c_int, c_float, c_float, *sizes, *[c_void_p] * 4, *layer),
            *(c_float, c_float, c_void_p, c_void_p, c_void_p, c_int),
        ]
        forward.restype = backward.restype = None
    for suffix in _SUFFIX.values():
        combine, spread = getattr(library, f"combine_{suffix}"), getattr(library, f"spread_{suffix}")
        combine.argtypes = [c_void_p, c_void_p, c_float, c_float, c_int64, c_void_p, c_int]
        spread.argtypes = [c_void_p, c_float, c_float, c_int64, c_void_p, c_void_p, c_int]
        combine.restype = spread.restype = None
    for suffix in _SUFFIX.values():
        closeness, gradient = getattr(library, f"closeness_{suffix}"), getattr(library, f"closeness_grad_{suffix}")
        closeness.argtypes = [c_void_p, c_int64, c_float, c_float, c_int]
        gradient.argtypes = [c_void_p, c_int64, c_float, c_float, c_float, c_void_p, c_int]
        closeness.restype, gradient.restype = c_double, None
    library.affine.argtypes = [*[c_void_p] * 4, c_double, c_int64, *[c_void_p] * 3]
    library.affine.restype = None
    library.fill_normal.argtypes = [
        *(c_void_p, c_int, c_int64, c_int64, c_uint64, c_uint32, c_void_p, c_void_p, c_int),
    ]
    library.fill_normal.restype = None
    return library


def available() -> bool:
    """Whether there are kernels on this machine."""
    return wanted() and _library() is not None


def takes(current: Tensor) -> bool:
    """Whether the kernels can run a layer with these input currents [T, N, *]."""
    return current.device.type == "cpu" and current.dtype in _SUFFIX and available()


def channel_last(one_step: Tensor) -> bool:
    """Whether the memory of one time step [N, C, *] is dense with the channel innermost."""
    if one_step.dim() == 4:
        return one_step.is_contiguous(memory_format=torch.channels_last)
    return one_step.dim() == 2 and one_step.is_contiguous()


def _dense(one_step: Tensor) -> bool:
    return channel_last(one_step) or one_step.is_contiguous()


def dense(steps: Tensor) -> bool:
    """Whether a tensor [T, N, *] fills its memory without gaps, step after step."""
    return _dense(steps[0]) and steps.stride(0) == steps[0].numel()


def _stacked(current: Tensor) -> Tensor:
    """The same values, each time step dense and the steps at one distance."""
    if _dense(current[0]) and (current.shape[0] == 1 or current.stride(0) in (0, current[0].numel())):
        return current
    return torch.stack(list(current))


def _numbers(rows: Tensor) -> Tensor:
    """One int64 for each row, side by side in memory."""
    return rows.to(torch.int64).contiguous()


def alike(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors may be walked through together: one shape, layout and type."""
    return x.shape == y.shape and x.stride() == y.stride() and x.dtype == y.dtype and x.device == y.device


def _channels(one_step: Tensor) -> int:
    return one_step.shape[1] if one_step.dim() > 1 else 1


def _threads(size: int) -> int:
    return torch.get_num_threads() if size >= _LEAST_PARALLEL else 1


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


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
        current: input currents [T, N, *], or [1, N, *] if they are the same in all `steps`.
        noise, params: as `models.lif.lif`.
        affine: normalises the currents first.
        with_membrane, keep: whether the membrane potential is wanted before noise, and after it for `backward`.
        steps: T; 0 if `current` says it.

    Returns:
        spikes, membrane potential after noise where it is kept, and before it where it is wanted, each [T, N, *].
    """
    current = _stacked(current.detach())
    T, N = steps or current.shape[0], current.shape[1]
    one = current[0]
    last = channel_last(one)
    if affine is not None and not last:
        raise ValueError("a fused normalisation needs the channel innermost in memory")
    size = one.numel()
    spikes, v = _empty(one, T), _empty(one, T) if keep else None
    before = _empty(one, T) if with_membrane else None
    given, generated = None, None
    if isinstance(noise, Tensor):
        given = _like(noise, one, T)
    elif noise is not None and last:
        generated = noise
    elif noise is not None:
        given = _like(noise.tensor(T, one.shape[1:]), one, T)
    samples = draws = None
    if generated is not None:
        generated.check(T, size // max(N, 1))
        samples, draws = (_numbers(rows) for rows in (generated.samples, generated.draws))
    if size:
        getattr(_library(), f"forward_{_SUFFIX[current.dtype]}")(
            *(
                current.data_ptr(),
                current.stride(0) if current.shape[0] > 1 else 0,
                T,
                N,
                size // max(N, 1),
                _channels(one),
            ),
            *(_pointer(affine.scale if affine else None), _pointer(affine.shift if affine else None)),
            *(params.decay, params.v_threshold, params.v_reset, _pointer(given), int(generated is not None)),
            *(generated.key if generated else 0, generated.stream if generated else 0),
            *(_pointer(samples), _pointer(draws)),
            *(generated.sigma if generated else 0.0,),
            *(spikes.data_ptr(), _pointer(v), _pointer(before), _threads(T * size)),
        )
    return spikes, v, before


def _empty(one: Tensor, T: int) -> Tensor:
    flat = torch.empty(T * one.numel(), dtype=one.dtype)
    return flat.as_strided((T, *one.shape), (one.numel(), *one.stride()))


def _like(value: Tensor, one: Tensor, T: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values in the memory layout of T steps like `one`."""
    if value.dtype == dtype and value.shape == (T, *one.shape) and value.stride() == (one.numel(), *one.stride()):
        return value
    return _empty(one.to(dtype) if one.dtype != dtype else one, T).copy_(value)


def _constants(surrogate: Surrogate) -> tuple[int, float, float] | None:
    """Kind and factors of the surrogates that the kernel knows."""
    if type(surrogate) is Triangular:
        return 0, surrogate.gamma, 1 / surrogate.gamma**2
    if type(surrogate) is Rectangular:
        return 1, surrogate.gamma / 2, 1 / surrogate.gamma
    if type(surrogate) is ArcTan:
        return 2, math.pi / 2 * surrogate.alpha, surrogate.alpha / 2
    return None


def differentiates(surrogate: Surrogate) -> bool:
    """Whether the kernel knows this surrogate; exponentials are torch's own."""
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
    potentials = potentials if simulated else _stacked(potentials)
    T, one = steps or potentials.shape[0], potentials[0]
    N, dtype, constants = len(one), potentials.dtype, _constants(params.surrogate)
    assert constants is not None
    channelwise = grad_spikes is not None and _channelwise(grad_spikes) and channel_last(one)
    if grad_spikes is not None and channelwise:
        grad_spikes = grad_spikes[..., 0, 0].to(dtype).contiguous()
    elif grad_spikes is not None:
        grad_spikes = _like(grad_spikes, one, T, dtype)
    if grad_membrane is not None:
        grad_membrane = _like(grad_membrane, one, T, dtype)
    grad_current = _empty(one, 1 if steps else T)
    v, current = (potentials, None) if simulated else (None, potentials)
    again = affine if affine is not None and not simulated else None
    threads = _threads(T * one.numel())
    room = torch.empty(threads, 2, T, _BLOCK, dtype=torch.float32)
    if one.numel():
        getattr(_library(), f"backward_{_SUFFIX[dtype]}")(
            *(_pointer(v), _pointer(current), potentials.stride(0) if len(potentials) > 1 else 0),
            *(_pointer(again.scale if again else None), _pointer(again.shift if again else None)),
            *(_pointer(grad_spikes), int(channelwise), _pointer(grad_membrane)),
            *(T, N, one.numel() // N, _channels(one)),
            *(_pointer(affine.back if affine else None), _pointer(affine.weight if affine else None)),
            *(params.decay, params.v_threshold, params.v_reset, int(params.detach_reset), *constants),
            *(int(steps > 0), grad_current.data_ptr(), room.data_ptr(), threads),
        )
    return grad_current


def _channelwise(grad: Tensor) -> bool:
    """Whether a gradient [T, N, C, H, W] is one number a channel, as that of a sum over the image is."""
    return grad.dim() == 5 and grad.stride(-1) == grad.stride(-2) == 0


def fill_normal(out: Tensor, key: int, stream: int, samples: Tensor, draws: Tensor) -> None:
    """Standard normal numbers into a contiguous float32 [T, N, L]; `samples` and `draws` are int64 [N]."""
    T, N, L = out.shape
    samples, draws = _numbers(samples), _numbers(draws)
    _library().fill_normal(
        out.data_ptr(), T, N, L, key, stream, samples.data_ptr(), draws.data_ptr(), _threads(out.numel())
    )


def affine(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Affine:
    """A batch normalisation with these statistics, float32 [C] each, as its factors."""
    scale, shift, back = (torch.empty_like(weight) for _ in range(3))
    _library().affine(
        *(tensor.data_ptr() for tensor in (weight, bias, mean, variance)),
        *(eps, len(weight), scale.data_ptr(), shift.data_ptr(), back.data_ptr()),
    )
    return Affine(scale, shift, back, weight.detach())


def combine(x: Tensor, y: Tensor, a: float, b: float) -> Tensor:
    """a * x + b * y, for dense tensors of one layout."""
    out = torch.empty_like(x)
    size = x.numel()
    getattr(_library(), f"combine_{_SUFFIX[x.dtype]}")(
        x.data_ptr(), y.data_ptr(), a, b, size, out.data_ptr(), _threads(size)
    )
    return out


def spread(grad: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
    """a * grad and b * grad, for a dense tensor."""
    first, second = torch.empty_like(grad), torch.empty_like(grad)
    size = grad.numel()
    getattr(_library(), f"spread_{_SUFFIX[grad.dtype]}")(
        grad.data_ptr(), a, b, size, first.data_ptr(), second.data_ptr(), _threads(size)
    )
    return first, second


def closeness(v: Tensor, v_threshold: float, delta: float) -> float:
    """Mean of max(0, delta - |v - v_threshold|) over a dense tensor."""
    run = getattr(_library(), f"closeness_{_SUFFIX[v.dtype]}")
    return float(run(v.data_ptr(), v.numel(), v_threshold, delta, _threads(v.numel()))) / max(v.numel(), 1)


def closeness_grad(v: Tensor, v_threshold: float, delta: float, grad: float) -> Tensor:
    """Its gradient, `grad` towards the outside for each potential inside the band."""
    out = torch.empty_like(v)
    run = getattr(_library(), f"closeness_grad_{_SUFFIX[v.dtype]}")
    run(v.data_ptr(), v.numel(), v_threshold, delta, grad, out.data_ptr(), _threads(v.numel()))
    return out


def join(x: Tensor, y: Tensor, a: float, b: float, params: "LIFParams", affine: Affine) -> tuple[Tensor, Tensor]:
    """a * x + b * y, and the spikes of the noise-free layer that it enters normalised, each [T, N, *].

    Args:
        x, y: [T, N, C, *], `dense` and with the channel innermost, of one layout.
        a, b: their factors.
        params, affine: the layer's constants and its normalisation.
    """
    T, one = x.shape[0], x[0]
    total, spikes = _empty(one, T), _empty(one, T)
    if one.numel():
        getattr(_library(), f"join_forward_{_SUFFIX[x.dtype]}")(
            *(x.data_ptr(), y.data_ptr(), a, b, T, len(one), one.numel() // len(one), _channels(one)),
            *(affine.scale.data_ptr(), affine.shift.data_ptr(), params.decay, params.v_threshold, params.v_reset),
            *(total.data_ptr(), spikes.data_ptr(), _threads(T * one.numel())),
        )
    return total, spikes


def joins(params: "LIFParams") -> bool:
    """Whether `join_backward` knows this layer."""
    return type(params.surrogate) is Triangular and not params.detach_reset


def join_backward(
    total: Tensor,
    grad_total: Tensor | None,
    grad_spikes: Tensor,
    a: float,
    b: float,
    params: "LIFParams",
    affine: Affine,
) -> tuple[Tensor, Tensor]:
    """Gradients in x and in y of `join`, given those in the spikes and, from elsewhere, in the sum."""
    T, one = total.shape[0], total[0]
    channelwise = _channelwise(grad_spikes)
    grad_spikes = (
        grad_spikes[..., 0, 0].to(total.dtype).contiguous() if channelwise else _like(grad_spikes, one, T, total.dtype)
    )
    grad_total = None if grad_total is None else _like(grad_total, one, T, total.dtype)
    grad_x, grad_y = _empty(one, T), _empty(one, T)
    constants, threads = _constants(params.surrogate), _threads(T * one.numel())
    assert constants is not None
    room = torch.empty(threads, 2, T, _BLOCK, dtype=torch.float32)
    if one.numel():
        getattr(_library(), f"join_backward_{_SUFFIX[total.dtype]}")(
            *(total.data_ptr(), _pointer(grad_total), grad_spikes.data_ptr(), int(channelwise), a, b),
            *(T, len(one), one.numel() // len(one), _channels(one)),
            *(tensor.data_ptr() for tensor in affine),
            *(params.decay, params.v_threshold, params.v_reset, *constants[1:]),
            *(grad_x.data_ptr(), grad_y.data_ptr(), room.data_ptr(), threads),
        )
    return grad_x, grad_y
