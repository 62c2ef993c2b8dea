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
    if norm.training or type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d) or norm._forward_hooks:
        return None
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    weight, bias, mean, variance = norm.weight, norm.bias, norm.running_mean, norm.running_var
    if weight is None or bias is None or mean is None or variance is None:
        return None
    if torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        return None
    kernels = kernels_for(current)
    single = all(value.dtype == torch.float32 for value in (weight, bias, mean, variance))
    if kernels is None or not channel_last(current[0]) or not single:
        return None
    return kernels.affine(weight, bias, mean, variance, norm.eps)
