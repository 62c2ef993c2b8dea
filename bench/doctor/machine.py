"""Whether this device computes what the code says."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy
from bench.doctor.finding import Finding, NotApplicableError, UnsoundError, examine
from bench.doctor.networks import QUIET, images, spiking_network
from models.kernels import native
from models.kernels.compiler import compiled
from models.lif import LIFParams, bptt, lif, lif_reference, simulate
from models.random import CounterRNG, philox4x32
from models.surrogates import ArcTan, Triangular

GROUP = "networks"
_KNOWN_ANSWERS = (
    ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
)
"""Vectors of Random123's kat_vectors (Salmon et al., SC 2011): counter, key, words."""


@dataclass(frozen=True)
class _Variant:
    params: LIFParams
    noisy: bool


_VARIANTS = (
    _Variant(LIFParams(0.5, 1.0, 0.0, False, Triangular()), False),
    _Variant(LIFParams(0.9, 0.7, -0.2, True, ArcTan()), True),
    _Variant(LIFParams(1.0, 1.0, 0.0, False, ArcTan()), True),
)


def machine_findings() -> Iterator[Callable[[torch.device], Iterator[Finding]]]:
    """One function for each part, giving its findings on a device."""
    parts: dict[str, dict[str, Callable[[torch.device], str]]] = {
        "fused LIF": {"forward": _lif_forward, "gradient": _lif_gradient, "kernels": _kernels},
        "Philox": {"known answers": _philox, "same as on the CPU": _uniform},
        "float32": {"matrix products": _products, "convolutions": _convolutions, "flags": _flags},
        "determinism": {"logits": _repeats, "gradient": _gradient_repeats},
    }
    for name, tests in parts.items():
        yield partial(_findings, name, tests)


def _findings(name: str, tests: Mapping[str, Callable[[torch.device], str]], device: torch.device) -> Iterator[Finding]:
    return (examine(GROUP, name, check, partial(test, device)) for check, test in tests.items())


def _currents(device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    current, noise = torch.randn(2, 6, 5, 7, 3, generator=generator, dtype=torch.float64)
    return 1.5 * current.to(device), 0.6 * noise.to(device)


def _lif_forward(device: torch.device) -> str:
    current, noise = _currents(device)
    for variant in _VARIANTS:
        met = noise if variant.noisy else None
        fused, written = (run(current, variant.params, met)[0] for run in (lif, lif_reference))
        if not torch.equal(fused, written):
            raise UnsoundError(f"{int((fused != written).sum())} of {fused.numel()} spikes differ from the equations'")
    return ""


def _lif_gradient(device: torch.device) -> str:
    current, noise = _currents(device)
    for variant in _VARIANTS:
        grads = []
        for run in (lif, lif_reference):
            leaf = current.clone().requires_grad_()
            spikes = run(leaf, variant.params, noise if variant.noisy else None)[0]
            weights = torch.linspace(-1, 1, spikes.numel(), dtype=torch.float64, device=device).view_as(spikes)
            grads.append(torch.autograd.grad((spikes * weights).sum(), leaf)[0])
        worst = float((grads[0] - grads[1]).abs().max())
        if not worst <= 1e-10:
            raise UnsoundError(f"the analytic gradient differs from autograd's by up to {worst:.1e}")
    return ""


def _kernels(device: torch.device) -> str:
    """The compiled layer against the torch operations that it stands for, bit by bit."""
    if device.type != "cpu":
        raise NotApplicableError("of the processor only")
    if not native.available():
        raise NotApplicableError(f"torch operations run in their place: {compiled()[1]}")
    current, noise = (value.float() for value in _currents(device))
    for variant in _VARIANTS:
        given = noise if variant.noisy else None
        ours = native.simulate(current, given, variant.params, None, True, True)
        plain = simulate(current, given, variant.params, True)
        v = plain[1]
        grads = (
            native.backward(v, variant.params, None, current, None),
            bptt(v, variant.params, lambda _, x: variant.params.surrogate.grad(x), current),  # noqa: B023
        )
        pairs = [*zip(ours, plain, strict=True), grads]
        if not all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs):
            raise UnsoundError("the compiled layer differs from the torch operations; set BENCH_KERNELS=torch")
    return ""


def _philox(device: torch.device) -> str:
    for counter, key, expected in _KNOWN_ANSWERS:
        words = philox4x32([torch.tensor([word], device=device) for word in counter], key)
        got = " ".join(f"{int(word):08x}" for word in words)
        if got != expected:
            raise UnsoundError(f"gives {got} where Random123 gives {expected}")
    return ""


def _uniform(device: torch.device) -> str:
    samples = torch.arange(50)
    here, there = CounterRNG(3, samples), CounterRNG(3, samples.to(device))
    if not torch.equal(here.uniform((33,)), there.uniform((33,)).cpu()):
        raise UnsoundError("uniform numbers are not the processor's")
    worst = float((here.normal(4, (33,)) - there.normal(4, (33,)).cpu()).abs().max())
    if not worst <= 1e-5:
        raise UnsoundError(f"normal numbers differ from the processor's by up to {worst:.1e}")
    return ""


_FINE = 1 + 2.0**-12
"""TF32, with 10 bits after the point, rounds it to 1. Float32 holds it, and sums of 144 of it."""


def _products(device: torch.device) -> str:
    return _exact(torch.full((64, 64), _FINE, device=device) @ torch.ones(64, 64, device=device), 64 * _FINE)


def _convolutions(device: torch.device) -> str:
    x, kernel = torch.full((2, 16, 8, 8), _FINE, device=device), torch.ones(16, 16, 3, 3, device=device)
    return _exact(functional.conv2d(x, kernel)[..., :6, :6], 144 * _FINE)


def _exact(values: Tensor, expected: float) -> str:
    worst = float((values.double() - expected).abs().max()) / expected
    # Winograd's and Fourier convolutions round too, by some 1e-6.
    if not worst <= 1e-5:
        raise UnsoundError(f"relative error {worst:.1e}: this is not float32; TF32 or bfloat16 is on")
    return ""


def _flags(device: torch.device) -> str:
    if device.type != "cuda":
        raise NotApplicableError("of CUDA only")
    backends = torch.backends
    wrong = {
        "cudnn.allow_tf32": backends.cudnn.allow_tf32,
        "cuda.matmul.allow_tf32": backends.cuda.matmul.allow_tf32,
        "cudnn.benchmark": backends.cudnn.benchmark,
        "not cudnn.deterministic": not backends.cudnn.deterministic,
    }
    if any(wrong.values()):
        raise UnsoundError(f"set: {', '.join(name for name, value in wrong.items() if value)}")
    return ""


def _repeats(device: torch.device) -> str:
    model, x = spiking_network(QUIET, device), images(32, device)
    with torch.no_grad():
        first, second = model(x), model(x)
    if not torch.equal(first, second):
        raise UnsoundError(f"one batch twice gives logits that differ by {float((first - second).abs().max()):.1e}")
    return ""


def _gradient_repeats(device: torch.device) -> str:
    model, x = spiking_network(QUIET, device), images(32, device)
    y = torch.arange(32, device=device) % 4
    with frozen(model):
        first, second = (input_gradient(model, x, y, cross_entropy).grad for _ in range(2))
    if not torch.equal(first, second):
        raise UnsoundError(f"one batch twice gives gradients that differ by {float((first - second).abs().max()):.1e}")
    return ""
