"""Forward passes alone, averaged over a stochastic model's noise."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.gradients.estimation import active_estimation
from attacks.gradients.input import FOLDED_ROWS


def expected(model: nn.Module, x: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of `value(logits)` over as many draws of the model's noise as gradients are averaged over.

    Cost: one forward pass for each draw.

    Args:
        model: maps x to logits [N, K].
        x: inputs [N, *].
        value: from the logits [N, K] of one draw to what is averaged, [N] or [N, *].
    """
    draws = active_estimation().draws
    folded = max(1, min(draws, FOLDED_ROWS // max(len(x), 1)))
    total: Tensor | None = None
    with torch.no_grad():
        for done in range(0, draws, folded):
            copies = min(folded, draws - done)
            logits = model(x.repeat(copies, *[1] * (x.dim() - 1)) if copies > 1 else x)
            for part in logits.chunk(copies):
                total = value(part) if total is None else total + value(part)
    assert total is not None
    return total / draws
