"""The input gradient, and the promise that taking it leaves the model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attacks.losses import Loss


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients inside the block; every module's own mode and flags afterwards.

    With the parameters frozen, autograd neither computes weight gradients nor
    keeps the activations that only they need.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Gradient of the summed loss in the input: one forward and one backward pass.

    Args:
        model: maps x to logits [N, K].
        x: inputs [N, *].
        y: labels [N].
        loss: per-sample loss.

    Returns:
        gradient [N, *] and logits [N, K], both detached.

    Raises:
        ValueError: the model's output does not depend differentiably on its input.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        value = loss(logits, y).sum()
    if not value.requires_grad:
        raise ValueError("the model's output has no gradient in its input: it detaches the graph or runs under no_grad")
    (grad,) = torch.autograd.grad(value, x, allow_unused=True)
    if grad is None:
        raise ValueError("the model's output does not depend on its input through differentiable operations")
    return grad, logits.detach()
