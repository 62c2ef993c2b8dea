"""Spiking WRN-16-4 in the form that the SNN-robustness literature uses (SNN-RAT, models/WideResNet.py)."""

from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn

from models.kernels import Affine, alike, channel_last, dense, kernels_for, native
from models.lif import LIFParams, refuse_second_derivative, repeated
from models.net import Encoding, NeuronFactory, SpikingNet
from models.neurons import LIF
from models.norm import fused
from models.time import image_mean, merged


class ConvexCombination(nn.Module):
    """c1 * a + c2 * b with two learnable scalars, 1/2 each at the start (Parseval networks, Cisse et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        trained = torch.is_grad_enabled() and self.coefficients.requires_grad
        if not trained and kernels_for(a) is not None and alike(a, b) and dense(a):
            first, second = self.coefficients.tolist()
            return _Combined.apply(a, b, first, second)  # type: ignore[no-any-return]
        if not trained and a.dtype == torch.bfloat16:
            # As the kernel: rounded once.
            return (self.coefficients[0] * a.float() + self.coefficients[1] * b.float()).to(a.dtype)
        return self.coefficients[0] * a + self.coefficients[1] * b


class _Combined(torch.autograd.Function):
    """The same sum in one pass over memory, and its gradients in one."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: float, second: float) -> Tensor:
        ctx.coefficients = first, second
        kernels = kernels_for(a)
        assert kernels is not None
        return kernels.combine(a, b, first, second)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        refuse_second_derivative()
        (grad,) = grads
        first, second = ctx.coefficients
        kernels = kernels_for(grad)
        if kernels is not None and dense(grad):
            return *kernels.spread(grad, first, second), None, None
        return grad * first, grad * second, None, None


class _Joined(torch.autograd.Function):
    """The sum of a block and the neuron that it enters, in one pass over memory; their gradients in one."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: float, b: float, params: LIFParams, affine: Affine
    ) -> tuple[Tensor, Tensor]:
        total, spikes = native.join(x, y, a, b, params, affine)
        ctx.save_for_backward(total)
        ctx.how = a, b, params, affine
        ctx.set_materialize_grads(False)
        return total, spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (total,) = ctx.saved_tensors
        for_total, for_spikes = grads
        if for_spikes is None:
            for_spikes = total.new_zeros(()).expand(total.shape)
        return *native.join_backward(total, for_total, for_spikes, *ctx.how), None, None, None, None


class _Block(nn.Module):
    """Pre-activation block; where channels change the shortcut is a 1x1 convolution of the spikes, else x itself."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, neuron: NeuronFactory) -> None:
        super().__init__()
        self.bn1, self.neuron1 = nn.BatchNorm2d(fan_in), neuron()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.bn2, self.neuron2 = nn.BatchNorm2d(fan_out), neuron()
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False) if fan_in != fan_out else None
        self.combine = ConvexCombination()

    def forward(self, x: Tensor, spikes: Tensor, neuron: LIF, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """The residual stream after the block, and the spikes of the neuron that it enters next.

        Args:
            x: residual stream [T, N, C, H, W].
            spikes: of the block's own first neuron.
            neuron, norm: the next neuron and its normalisation.
        """
        skip = x if self.shortcut is None else merged(self.shortcut, spikes)
        branch = merged(self.conv2, self.neuron2(merged(self.conv1, spikes), self.bn2))
        return self._joined(skip, branch, neuron, norm)

    def _joined(self, skip: Tensor, branch: Tensor, neuron: LIF, norm: nn.Module) -> tuple[Tensor, Tensor]:
        coefficients, kernels = self.combine.coefficients, kernels_for(branch)
        trained = torch.is_grad_enabled() and coefficients.requires_grad
        # In bfloat16 the sum is rounded before the neuron sees it, and its gradients before they are added.
        joins = kernels is not None and kernels.JOINS and branch.dtype == torch.float32
        if joins and not trained and neuron.is_plain and native.joins(neuron.params):
            affine = fused(norm, branch)
            if affine is not None and alike(skip, branch) and dense(branch) and channel_last(branch[0]):
                a, b = coefficients.tolist()
                return _Joined.apply(skip, branch, a, b, neuron.params, affine)  # type: ignore[no-any-return]
        x = self.combine(skip, branch)
        return x, neuron(x, norm)


class WRN16x4(SpikingNet):
    """Wide residual network of depth 16 and width 4: thirteen LIF layers, 2.75 M parameters.

    The residual stream is real-valued: only the branches spike.

    Args:
        num_classes: K.
        in_shape: (C, H, W); H and W divisible by 4.
        neuron: makes one spiking layer.
        **encoding: see `SpikingNet`.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, int, int],
        neuron: NeuronFactory,
        **encoding: Unpack[Encoding],
    ) -> None:
        super().__init__(**encoding)
        self.stem = nn.Conv2d(in_shape[0], 16, 3, 1, 1, bias=False)
        widths = (16, 64, 64, 128, 128, 256, 256)
        strides = (1, 1, 2, 1, 2, 1)
        self.blocks = nn.Sequential(
            *(_Block(a, b, s, neuron) for a, b, s in zip(widths, widths[1:], strides, strict=False))
        )
        self.bn, self.neuron = nn.BatchNorm2d(256), neuron()
        self.readout = nn.Linear(256, num_classes)
        self._finish()

    def body(self, current: Tensor, norm: nn.Module | None, steps: int) -> Tensor:
        blocks = [cast(_Block, block) for block in self.blocks]
        # This normalisation comes after the first convolution's repetition, and its statistics count every step.
        spikes = blocks[0].neuron1(repeated(current, steps), blocks[0].bn1)
        entered = [(block.neuron1, block.bn1) for block in blocks[1:]] + [(self.neuron, self.bn)]
        for block, (neuron, norm) in zip(blocks, entered, strict=True):
            current, spikes = block(current, spikes, neuron, norm)
        return self.readout(image_mean(spikes))  # type: ignore[no-any-return]
