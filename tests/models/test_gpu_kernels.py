"""The Triton kernels: their operations in Triton's interpreter, their code for GPUs, and both on a GPU where one is."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from support import environment, images
from torch import Tensor, nn

from models.kernels import gpu, native
from models.lif import LIFParams
from models.neurons import NeuronSpec, number_layers, spiking_layers
from models.random import Noise, noise_stream
from models.wrn import WRN16x4

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
LIF, NOISY = NeuronSpec(), NeuronSpec("nlif", params=(("noise_var", 0.1),))


def passes(file: str, **variables: str) -> None:
    """The tests of a file pass in a process of their own: whether Triton interprets is settled when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(HERE / file)]
    inherited = {name: value for name, value in environment().items() if not name.startswith("TRITON_INTERPRET")}
    done = subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@needs_triton
def test_they_equal_torch_s_operations_in_the_interpreter() -> None:
    passes("gpu_kernel_checks.py", TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="triton compiles for CUDA on Linux")
def test_the_compiler_rounds_every_operation_as_written(tmp_path: Path) -> None:
    passes("gpu_kernel_code.py", TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.gpu
@needs_gpu
@needs_triton
def test_they_equal_torch_s_operations_on_the_device() -> None:
    passes("gpu_kernel_checks.py")


def test_nothing_imports_triton_before_it_is_needed() -> None:
    code = (
        "from models.kernels import gpu; import sys, torch; gpu.takes(torch.zeros(1)); print('triton' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET", "") == "1", reason="they run on the CPU in the interpreter")
def test_they_leave_the_processor_to_others() -> None:
    assert not gpu.takes(torch.zeros(2, 3))


def network(neuron: NeuronSpec, device: torch.device) -> WRN16x4:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WRN16x4(10, (3, 16, 16), neuron.build, T=3, mean=(0.5,) * 3, std=(0.25,) * 3)
        # Fresh weights barely reach the threshold; a silent network would make every comparison empty.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 1.0, 2.0)
                nn.init.normal_(module.bias, 0.3, 0.2)
    number_layers(model)
    return model.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)


def logits_and_gradient(model: WRN16x4, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    with noise_stream(model, 5, torch.arange(len(x), device=x.device)):
        logits = model(x)
    (grad,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), grad


def here(value: Tensor) -> Tensor:
    """On the CPU in the same memory layout, also where time steps share their memory."""
    return value[0].cpu().expand(value.shape) if value.stride(0) == 0 else value.cpu()


@pytest.mark.gpu
@needs_gpu
@needs_triton
@pytest.mark.skipif(not native.available(), reason="no C kernels on this machine")
@pytest.mark.parametrize("neuron", [LIF, NOISY], ids=["lif", "nlif"])
def test_every_layer_of_a_network_is_the_processor_s(neuron: NeuronSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one bit differs from the C kernel's result for the same currents and gradients."""
    forward, back, seen = gpu.simulate, gpu.backward, []

    def on_the_cpu(affine: gpu.Affine | None) -> gpu.Affine | None:
        return gpu.Affine(*(tensor.cpu() for tensor in affine)) if affine is not None else None

    def simulate(
        current: Tensor,
        noise: Noise | None,
        params: LIFParams,
        affine: gpu.Affine | None,
        with_membrane: bool,
        keep: bool,
        steps: int = 0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        got = forward(current, noise, params, affine, with_membrane, keep, steps)
        if noise is not None:
            noise = noise._replace(samples=noise.samples.cpu(), draws=noise.draws.cpu())
        expected = native.simulate(here(current), noise, params, on_the_cpu(affine), with_membrane, keep, steps)
        for a, b in zip(got, expected, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or torch.equal(a.cpu(), b)
        seen.append(float(got[0].mean()))
        return got

    def backward(
        potentials: Tensor,
        params: LIFParams,
        affine: gpu.Affine | None,
        spikes: Tensor | None,
        membrane: Tensor | None,
        *,
        simulated: bool = True,
        steps: int = 0,
    ) -> Tensor:
        how = {"simulated": simulated, "steps": steps}
        got = back(potentials, params, affine, spikes, membrane, **how)
        grads = [here(grad) if grad is not None else None for grad in (spikes, membrane)]
        assert torch.equal(got.cpu(), native.backward(here(potentials), params, on_the_cpu(affine), *grads, **how))
        seen.append(0.0)
        return got

    monkeypatch.setattr(gpu, "simulate", simulate)
    monkeypatch.setattr(gpu, "backward", backward)
    logits_and_gradient(network(neuron, torch.device("cuda")), images(3, 3, 16, 16).cuda())
    assert len(seen) == 26
    assert min(seen[:13]) > 0.01


@pytest.mark.gpu
@needs_gpu
@needs_triton
@pytest.mark.parametrize("neuron", [LIF, NOISY], ids=["lif", "nlif"])
def test_a_network_is_the_one_that_is_written_out(neuron: NeuronSpec) -> None:
    """In single precision sums round differently, a spike is a step, and what one spike changes spreads."""
    model, x = network(neuron, torch.device("cuda")), images(16, 3, 16, 16).cuda()
    fused = logits_and_gradient(model, x)
    for layer in spiking_layers(model).values():
        layer.reference = True
    written = logits_and_gradient(model, x)
    spread = written[0].std(dim=0).mean()
    assert float((fused[0] - written[0]).abs().mean() / spread) < 0.05
    cosine = nn.functional.cosine_similarity(fused[1].flatten(1), written[1].flatten(1))
    assert float(cosine.median()) > 0.99
