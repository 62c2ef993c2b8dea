"""What Triton's compiler makes of the kernels, for GPUs that are not here; run by test_gpu_kernels.py.

The interpreter proves the operations and their order. Fusing, approximating and flushing are the compiler's doing, and
are seen in its PTX, where every operation states its rounding.
"""

import re
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget

from models.kernels import gpu, lif_triton
from models.lif import LIFParams
from models.random import Noise
from models.surrogates import SURROGATES

T, SHAPE = 3, (2, 8, 16, 16)
TARGETS = [80, 90]


@pytest.fixture(params=TARGETS)
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Kernels that are compiled by the launches inside the test, and not run."""
    target, made = GPUTarget("cuda", request.param, 32), []
    driver = SimpleNamespace(
        get_current_device=lambda: 0, get_current_stream=lambda _: 0, get_current_target=lambda: target
    )

    def compiling(kernel: Any) -> Any:
        class Grid:
            def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
                return lambda *args, **options: made.append(kernel.warmup(*args, grid=grid, **options))

        kernel.device_caches.clear()
        return Grid()

    names = ("forward", "backward", "fill_normal", "affine", "total", "combine", "spread")
    kernels = SimpleNamespace(**{name: compiling(getattr(lif_triton, name)) for name in names})
    monkeypatch.setattr(gpu, "_kernels", lambda: kernels)
    # It stays: the process is the tests' own, and Triton's way back looks for a GPU.
    triton.runtime.driver.set_active(driver)
    return made


def operations(made: list[Any]) -> Counter[str]:
    """How often each floating-point operation occurs in the code of the one kernel that was made."""
    (kernel,) = made
    text = kernel.asm["ptx"]
    assert "cubin" in kernel.asm
    found = re.findall(r"^\s+(?:@!?%\w+ )?([a-z0-9_]+(?:\.\w+)*\.(?:f32|f64|bf16x2|bf16))\b", text, re.MULTILINE)
    return Counter(found)


def exact(counts: Counter[str], fused: bool) -> None:
    """Additions and multiplications are rounded one by one and keep subnormals; fused only where `tl.fma` stands."""
    assert counts
    for operation in counts:
        name, *modifiers = operation.split(".")
        assert "approx" not in modifiers, operation
        assert "full" not in modifiers, operation
        if name in ("add", "sub", "mul", "fma", "div", "sqrt"):
            assert "rn" in modifiers, operation
        # Some versions flush what a division or a root may never meet here: their operands are far from subnormal.
        assert "ftz" not in modifiers or name in ("div", "sqrt"), operation
        assert name != "mad"
    assert any(operation.startswith("fma") for operation in counts) == fused


def current(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    one = torch.zeros(T * SHAPE[0], *SHAPE[1:], dtype=dtype).to(memory_format=torch.channels_last)
    return one.unflatten(0, (T, SHAPE[0]))


def affine() -> gpu.Affine:
    return gpu.Affine(*(torch.zeros(SHAPE[1]) for _ in range(4)))


def params(surrogate: str = "triangular") -> LIFParams:
    return LIFParams(0.5, 1.0, 0.0, False, SURROGATES[surrogate]())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("noisy", ["none", "given", "generated"])
def test_forward(compiled: list[Any], dtype: torch.dtype, normed: bool, noisy: str) -> None:
    rows = torch.arange(SHAPE[0])
    noise = {"none": None, "given": current(), "generated": Noise(0.6, 2**63 + 5, 1, rows, rows)}[noisy]
    gpu.simulate(current(dtype), noise, params(), affine() if normed else None, True, True)
    counts = operations(compiled)
    exact(counts, fused=True)
    elements = 512 // 128 if noisy == "generated" else 1024 // 128
    assert counts["fma.rn.f32"] == elements * (2 if normed else 1)
    roots = sum(count for operation, count in counts.items() if operation.startswith("sqrt"))
    assert roots == (elements // 2 if noisy == "generated" else 0)
    if dtype == torch.bfloat16:
        assert any(operation.startswith("cvt.rn.bf16") for operation in counts)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("normed", [False, True])
def test_backward(compiled: list[Any], surrogate: str, normed: bool) -> None:
    gpu.backward(current(), params(surrogate), affine() if normed else None, current(), current())
    counts = operations(compiled)
    if surrogate in ("sigmoid", "gaussian"):
        del counts["ex2.approx.f32"], counts["ex2.approx.ftz.f32"]
    exact(counts, fused=False)


def test_backward_of_a_constant_current(compiled: list[Any]) -> None:
    one_a_channel = torch.zeros(T, *SHAPE[:2], 1, 1).expand(T, *SHAPE)
    gpu.backward(current(), params(), affine(), one_a_channel, None, simulated=False, steps=T)
    assert len(compiled) == 3
    for kernel, fused in zip(compiled, (True, False, False), strict=True):
        exact(operations([kernel]), fused=fused)


def test_the_small_ones(compiled: list[Any]) -> None:
    x, rows = current(), torch.arange(2)
    gpu.combine(x, x, 0.5, 0.3)
    exact(operations(compiled), fused=False)
    compiled.clear()
    gpu.spread(x, 0.5, 0.3)
    exact(operations(compiled), fused=False)
    compiled.clear()
    gpu.fill_normal(torch.empty(T, 2, 900), -1, 3, rows, rows)
    exact(operations(compiled), fused=False)
    compiled.clear()
    gpu.affine(*(torch.ones(8) for _ in range(4)), 1e-5)
    counts = operations(compiled)
    exact(counts, fused=True)
    assert counts["sqrt.rn.f64"]
    assert counts["div.rn.f64"]


def test_keys_and_layers_are_of_one_kind(compiled: list[Any]) -> None:
    """A new number of a layer or a new key compiles nothing."""
    rows = torch.arange(2)
    for key, layer in ((0, 0), (1, 1), (2**64 - 1, 7), (2**40, 16), (12345, 2**31)):
        gpu.simulate(current(), Noise(0.5, key, layer, rows, rows), params(), None, False, True)
    assert len({id(kernel) for kernel in compiled}) == 1


def test_numbers_that_are_one(compiled: list[Any]) -> None:
    """Triton turns an argument of 1 into a constant, which is another kind of value in a kernel."""
    x, rows, single = torch.zeros(1, 1, 1), torch.arange(1), torch.ones(1)
    norm = gpu.affine(single, single, single, single, 0.0)
    for noise in (None, Noise(0.5, 1, 1, rows, rows)):
        gpu.simulate(x, noise, params(), norm, True, True)
    gpu.backward(x, params(), norm, x, x, steps=1)
    gpu.fill_normal(x, 1, 1, rows, rows)
    gpu.combine(x, x, 1.0, 1.0)
    gpu.spread(x, 1.0, 1.0)
    assert len(compiled) == 8


@pytest.mark.parametrize("size", [2**31 + 16, 2**31 + 1])
def test_batches_of_more_than_two_billion_neurons(compiled: list[Any], size: int) -> None:
    """Such sizes come as 64-bit numbers."""
    x, rows, kernels = torch.zeros(8), torch.arange(1), gpu._kernels()
    layer, key = (0.5, 1.0, 0.0), (3, 4, 5)
    what = {"AFFINE": True, "GIVEN": False, "FIRE": True, "KEEP": True, "BEFORE": True, "T": 3, "BLOCK": 512}
    for generated in (False, True):
        kernels.forward[(1,)](
            *(x, size, size, 1 << 20, 8, x, x, *layer, x, *key, rows, rows, 0.5, x, x, x), GENERATED=generated, **what
        )
    what = {"DETACH": False, "KIND": 0, "SPIKES": True, "MEMBRANE": True, "AFFINE": True, "T": 3, "BLOCK": 1024}
    for channelwise in (False, True):
        kernels.backward[(1,)](
            *(x, x, x, size, 1 << 20, 8, 2**33, x, x, *layer, 1.0, 1.0, x), CHANNELWISE=channelwise, **what
        )
    kernels.total[(1,)](x, size, 1 << 20, 8, x, x, x, AFFINE=True, T=3, BLOCK=1024)
    kernels.fill_normal[(1,)](x, size, 1 << 20, *key, rows, rows, T=3, BLOCK=512)
    kernels.combine[(1,)](x, x, 0.5, 0.5, size, x, BLOCK=1024)
    kernels.spread[(1,)](x, 0.5, 0.5, size, x, x, BLOCK=1024)
    assert len(compiled) == 8
