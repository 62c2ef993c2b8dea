"""Where in an image the logit of its class depends on the pixels."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.evidence.gradients import hoyer
from bench.evidence.numbers import Numbers
from bench.evidence.probe import Probe, grads_of


@dataclass(frozen=True)
class Heatmap(Numbers):
    """The gradient of one image.

    Attributes:
        image: its index in the test set.
        label: its class.
        values: |d f_y / d x| summed over channels and frames, [H][W].
        hoyer: sparseness of the gradient over all channels, in [0, 1]; None where it is zero everywhere.
        zero_share: of its entries that are exactly zero.
    """

    image: int
    label: int
    values: tuple[tuple[float, ...], ...]
    hoyer: float | None
    zero_share: float


def heatmaps(model: nn.Module, x: Tensor, y: Tensor, probe: Probe) -> tuple[Heatmap, ...]:
    """Input gradients of the true class's logit (TGO, Fig. 5), averaged over the probe's draws.

    The paper's Fig. 5 shows the gradient of f_y, its Eq. 45 writes that of the loss -log p_y, which is a multiple of
    other logits' gradients as well; here it is f_y, the logit, as the figure's caption says.

    Cost: 1 forward and 1 backward for each draw.

    Args:
        model: maps x to logits [N, K].
        x: images [N, C, H, W] or frames [N, T, C, H, W].
        y: labels [N].
        probe: gradient and noise.
    """
    total = torch.zeros_like(x)
    for part, draw in probe.parts():
        inputs = x[part].detach().requires_grad_()
        with probe.realisation(model, part, draw), torch.enable_grad():
            chosen = model(inputs).gather(1, y[part, None]).sum()
            total[part] += grads_of(chosen, [inputs])[0] / probe.draws
    sparseness = hoyer(total)
    maps = total.abs().flatten(1, -3).sum(1).double().cpu()
    return tuple(
        Heatmap(
            int(probe.samples[i]),
            int(y[i]),
            tuple(tuple(row) for row in maps[i].tolist()),
            float(sparseness[i]) if torch.isfinite(sparseness[i]) else None,
            float((total[i] == 0).double().mean()),
        )
        for i in range(len(x))
    )
