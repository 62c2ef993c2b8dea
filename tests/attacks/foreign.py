"""What the tests of foreign attacks share: smooth networks, and all that an attack must leave as it was."""

import random
import sys

import numpy as np
import torch
from torch import Tensor, nn

from attacks import Threat


def smooth_net(classes: int = 4, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A smooth deterministic network on [N, 1, 8, 8] whose classes random images share evenly."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, classes))
        nn.init.normal_(model[1].weight, std=0.5)
        nn.init.constant_(model[1].bias, 0)
        with torch.no_grad():
            model[1].bias -= model[1](torch.full((1, 1, 8, 8), 0.5).flatten(1))[0]
    return model.to(dtype).eval()


def linear_net(classes: int = 4) -> nn.Module:
    """A linear classifier, whose robustness has a closed form away from the box's walls."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        weight = torch.randn(classes, 64, generator=generator)
        model[1].weight.copy_(weight)
        model[1].bias.copy_(-0.5 * weight.sum(1))
    return model.eval()


def predicted(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)  # type: ignore[no-any-return]


def surroundings(model: nn.Module) -> list[object]:
    """Everything about a model and the process that an attack must not touch."""
    return [
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [tuple(vars(module)) for module in model.modules()],
        torch.get_rng_state(),
        list(np.random.get_state()[1]),  # type: ignore[arg-type, index]
        random.getstate(),
        np.random.RandomState,
        sys.gettrace(),
        sys.stdout,
        torch.is_grad_enabled(),
    ]


def inside(x: Tensor, x_adv: Tensor, threat: Threat) -> bool:
    """Whether candidates obey the threat model, in float64."""
    delta = (x_adv.double() - x.double()).flatten(1)
    size = delta.abs().amax(1) if threat.norm == "linf" else delta.norm(dim=1)
    return bool((size <= float(threat.eps)).all() and (x_adv >= threat.low).all() and (x_adv <= threat.high).all())
