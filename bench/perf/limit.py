"""What the machine could do at best: the network's bare convolutions and linear layers, and its peak arithmetic."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.perf.lab import Lab
from bench.perf.sample import Sample, stopwatch

BARE, PEAK = "bare convolutions", "peak arithmetic"
"""What tables call the two limits."""
_PEAK_SECONDS = 0.25
_ROWS = 64


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer with the input that it meets.

    Attributes:
        module: the layer, its weights frozen and in channels_last.
        x: its input, all time steps at once.
        grad: some gradient in its output.
        macs: multiplications of its forward pass.
    """

    module: nn.Module
    x: Tensor
    grad: Tensor
    macs: float


def bare_layers(lab: Lab, batch: int) -> list[Layer]:
    """The convolutions and linear layers of a network, with the inputs of one forward pass.

    The first sees each image once, since it is the same at every time step.
    """
    model = lab.fresh("plain PyTorch").to(memory_format=torch.channels_last)
    x, _ = lab.batch(batch)
    found: list[Layer] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rows = batch if not found else len(inputs[0])
        seen, shape = inputs[0][:rows].detach(), (rows, *output.shape[1:])
        weight: Tensor = module.weight  # type: ignore[assignment]
        layout = torch.channels_last if seen.dim() == 4 else torch.contiguous_format
        grad = torch.randn(shape, device=seen.device).to(memory_format=layout)
        macs = rows * output[0].numel() * weight[0].numel()
        found.append(Layer(module, seen.clone().contiguous(memory_format=layout), grad, macs))

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return found


def bare_step(lab: Lab, layers: list[Layer], batch: int) -> Sample:
    """Forward and input gradient of every layer, nothing between them; work is images times steps."""
    with stopwatch() as seconds:
        for layer in layers:
            x = layer.x.detach().requires_grad_()
            torch.autograd.grad(layer.module(x), x, layer.grad)
        lab.wait()
        taken = seconds()
    return Sample(taken, batch)


def flops(layers: list[Layer], batch: int) -> float:
    """Floating-point operations of one image's attack step: forward and input gradient, two for each multiplication."""
    return 2 * 2 * sum(layer.macs for layer in layers) / batch


def peak_rate(lab: Lab) -> dict[str, float]:
    """Operations a second of some large float32 products and convolutions, by name: the best run of each."""
    device, rates = lab.device, {}

    def best(name: str, operations: float, run: object) -> None:
        assert callable(run)
        run()
        began, shortest = time.perf_counter(), float("inf")
        while time.perf_counter() - began < _PEAK_SECONDS:
            with stopwatch() as seconds:
                run()
                lab.wait()
                shortest = min(shortest, seconds())
        rates[name] = operations / shortest

    for size in (1024, 2048):
        a, b = (torch.randn(size, size, device=device) for _ in range(2))
        best(f"product {size}", 2.0 * size**3, lambda a=a, b=b: a @ b)
    for channels, side in ((64, 32), (128, 16), (256, 8), (512, 4)):
        x = torch.randn(_ROWS, channels, side, side, device=device).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device).to(memory_format=torch.channels_last)
        operations = 2.0 * _ROWS * side**2 * channels**2 * 9
        name = f"convolution {channels} at {side}"
        best(name, operations, lambda x=x, weight=weight: functional.conv2d(x, weight, padding=1))
    return rates


def peak_sample(lab: Lab, best: dict[str, float]) -> Sample:
    """One search for the peak, for taking turns; `best` keeps the best of all. Work is floating-point operations."""
    rates = peak_rate(lab)
    for name, rate in rates.items():
        best[name] = max(best.get(name, 0.0), rate)
    return Sample(1.0, max(rates.values()))
