"""Batch normalisation with fixed statistics, inside the neuron's pass over memory.

An attack meets the network in eval mode with its weights frozen: normalising is then one multiplication and addition
for each current, which the neuron's kernel does on the way: on the CPU with the bits of torch's own normalisation.
"""

import torch
from torch import Tensor, nn

from models.kernels import Affine, channel_last, kernels_for


def fused(norm: nn.Module, current: Tensor) -> Affine | None:
    """The normalisation as factors for the kernel, or None where the module itself has to run.

    Args:
        norm: the module in front of the neuron.
        current: what it will normalise, [T, N, C, *].
    """
    if norm.training or type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d) or _is_touched(norm):
        return None
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    weight, bias, mean, variance = norm.weight, norm.bias, norm.running_mean, norm.running_var
    if weight is None or bias is None or mean is None or variance is None:
        return None
    if torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        return None
    factors = (weight, bias, mean, variance)
    fits = all(factor.dtype == torch.float32 and factor.device == current.device for factor in factors)
    if not fits or current.dim() < 3 or norm.num_features != current.shape[2] or not channel_last(current[0]):
        return None
    kernels = kernels_for(current)
    if kernels is not None:
        dense = [factor.contiguous() for factor in factors]
        return kernels.affine(dense[0], dense[1], dense[2], dense[3], norm.eps)
    # In bfloat16 the module would round between the normalisation and the neuron, which kernels do not.
    return _affine(*factors, norm.eps) if current.dtype == torch.bfloat16 else None


def _is_touched(norm: nn.Module) -> bool:
    """Whether somebody hangs on to the module's calls, or has put another function in their place."""
    hooks = (norm._forward_hooks, norm._forward_pre_hooks, norm._backward_hooks, norm._backward_pre_hooks)
    return any(hooks) or "forward" in vars(norm)


def _affine(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Affine:
    """The kernels' factors, by torch operations."""
    # Vector libraries may be an ulp off in a single-precision root; rounded from double it is exact.
    scale = 1 / (variance + eps).double().sqrt().float() * weight
    shift = (bias.double() - mean.double() * scale.double()).float()
    back = (1 / (variance.double() + eps).sqrt()).float()
    return Affine(scale, shift, back, weight.detach())
