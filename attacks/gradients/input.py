"""The input gradient, and the promise that taking it leaves the model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attacks.gradients.estimation import active_estimation
from attacks.losses import Loss
from models.random import active_noise_stream

FOLDED_ROWS = 512
"""A pass holds at most so many rows when the draws of a mean are folded into the batch. Not a matter of free
memory, which would let the machine's state change an outcome; where memory ends, passes are halved, which
changes no draw but the order of the sum."""


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


class InputGradient(NamedTuple):
    """What one gradient evaluation at a point gives; all detached.

    Attributes:
        grad: gradient of each image's loss, [N, *].
        logits: the model's own, mean over the draws, [N, K].
        loss: of each image, mean over the draws, [N].
    """

    grad: Tensor
    logits: Tensor
    loss: Tensor


def input_gradient(model: nn.Module, x: Tensor, labels: Tensor, loss: Loss) -> InputGradient:
    """Gradient of each image's loss in the image, as the attacker takes gradients (see `estimating`).

    Cost: one forward and one backward pass for each draw, and one forward more where the
    gradient's own forward pass is not the model's.

    Args:
        model: maps x to logits [N, K].
        x: inputs [N, *].
        labels: what the loss compares the logits with, [N] or [N, *].
        loss: (logits, labels) -> [N].

    Raises:
        ValueError: the model's output does not depend differentiably on its input.
    """
    estimation = active_estimation()
    estimation.batch, estimation.point, estimation.new_point = len(x), object(), True
    total: InputGradient | None = None
    done = 0
    try:
        while done < estimation.draws:
            copies = min(_copies_that_fit(len(x), estimation.fitting), estimation.draws - done)
            stream = active_noise_stream()
            draw = stream.next_draw if stream is not None else 0
            try:
                part = _sum_over_draws(model, x, labels, loss, copies, estimation.faithful)
            except torch.OutOfMemoryError:
                if copies == 1:
                    raise
                estimation.fitting = copies // 2 * len(x)
                _seek(draw)
                continue
            total = part if total is None else InputGradient(*(a + b for a, b in zip(total, part, strict=True)))
            done += copies
            estimation.new_point = False
    finally:
        estimation.batch, estimation.point, estimation.new_point = None, None, True
    assert total is not None
    return total if done == 1 else InputGradient(*(value / done for value in total))


def _copies_that_fit(batch: int, fitting: int | None) -> int:
    rows = FOLDED_ROWS if fitting is None else min(fitting, FOLDED_ROWS)
    return max(1, rows // max(batch, 1))


def _seek(draw: int) -> None:
    stream = active_noise_stream()
    if stream is not None:
        stream.seek(draw)


def _sum_over_draws(
    model: nn.Module, x: Tensor, labels: Tensor, loss: Loss, copies: int, faithful: bool
) -> InputGradient:
    """One pass over `copies` copies of the batch, summed over them."""
    batch, stream = len(x), active_noise_stream()
    draw = stream.next_draw if stream is not None else 0
    if copies > 1:
        x, labels = (value.repeat(copies, *[1] * (value.dim() - 1)) for value in (x, labels))
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        if logits.dtype.itemsize < x.dtype.itemsize:
            # Rounded by autocast; losses and margins are not.
            logits = logits.to(x.dtype)
        losses = loss(logits, labels)
        value = losses.sum()
    if not value.requires_grad:
        raise ValueError("the model's output has no gradient in its input: it detaches the graph or runs under no_grad")
    (grad,) = torch.autograd.grad(value, x, allow_unused=True)
    if grad is None:
        raise ValueError("the model's output does not depend on its input through differentiable operations")
    if not faithful:
        # The draws of the pass that was differentiated are those of this one.
        _seek(draw)
        with torch.no_grad():
            logits = model(x)
            losses = loss(logits, labels)
    if copies == 1:
        return InputGradient(grad, logits.detach(), losses.detach())
    folded = (rows.detach().unflatten(0, (copies, batch)).sum(0) for rows in (grad, logits, losses))
    return InputGradient(*folded)
